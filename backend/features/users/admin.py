"""Accounts in the console."""

from collections.abc import Mapping
from typing import Any, ClassVar, get_args

from markupsafe import Markup
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request
from wtforms import EmailField, Field, PasswordField, SelectField

from backend.core.auth import Principal
from backend.core.console import ConsoleView, show_nothing
from backend.core.console_actions import record_action
from backend.core.console_filters import Choice, DateRange, Filter, Related, YesNo
from backend.core.models import key_of
from backend.features.users import service, sessions
from backend.features.users.models import User, UserSession
from backend.features.users.schemas import Role, UserForm
from backend.features.users.settings import UsersSettings

ROLES = [(role, role.capitalize()) for role in get_args(Role)]


class UserView(ConsoleView, model=User):
    scope = "users"
    removal_is_dangerous = True
    form_schema = UserForm
    filters: ClassVar[tuple[Filter, ...]] = (
        Choice(User.role, ROLES),
        YesNo(User.is_active),
        YesNo(User.email_verified_at, "E-mail verified"),
        DateRange(User.created_at),
    )
    icon = "fa-solid fa-users"
    column_list: ClassVar[list[Any]] = [User.id, User.email, User.full_name, User.role, User.is_active, User.created_at]
    column_details_list: ClassVar[list[Any]] = [*column_list, User.email_verified_at, User.updated_at, User.version]
    column_searchable_list: ClassVar[list[Any]] = [User.email, User.full_name]
    column_sortable_list: ClassVar[list[Any]] = [User.id, User.email, User.role, User.created_at]
    column_labels: ClassVar[dict[Any, str]] = {
        "id": "ID",
        "email": "E-mail",
        "full_name": "Name",
        "role": "Rank",
        "email_verified_at": "E-mail verified",
        "is_active": "Active",
        "created_at": "Created",
        "updated_at": "Updated",
        "version": "Version",
    }
    form_columns: ClassVar[list[Any]] = [User.email, User.full_name, User.role, User.is_active]
    form_overrides: ClassVar[dict[Any, Any]] = {"email": EmailField, "role": SelectField}
    form_args: ClassVar[dict[str, Any]] = {"role": {"choices": ROLES}}
    form_widget_args: ClassVar[dict[str, Any]] = {
        "email": {"autocomplete": "off"},
        "full_name": {"autocomplete": "off"},
        "role": {"class": "form-select"},
    }

    def extra_fields(self) -> dict[str, Field]:
        minimum = UsersSettings.current().password_min_length
        hint = (
            f"At least {minimum} characters; a new account needs one. Empty keeps the present password, "
            "a new one signs the person out everywhere."
        )
        attributes = {"class": "form-control", "autocomplete": "new-password"}
        return {"password": PasswordField("Password", description=hint, render_kw=attributes)}

    async def create(self, session: AsyncSession, form: UserForm, caller: Principal) -> User:
        await service.may_manage(session, caller, None, role=form.role)
        return await service.create_user(
            session, password=form.password.get_secret_value(), **form.model_dump(exclude={"password"})
        )

    async def change(self, session: AsyncSession, record: User, form: UserForm, caller: Principal) -> User:
        password = form.password.get_secret_value() or None
        await service.may_manage(session, caller, record, role=form.role)
        service.refuse_shortcuts(caller, record, password=password is not None)
        return await service.update_user(session, record, password=password, **form.model_dump(exclude={"password"}))

    async def remove(self, session: AsyncSession, record: User, caller: Principal) -> None:
        await service.may_manage(session, caller, record)
        await service.delete_user(session, record)

    @record_action("Sign out everywhere", question="Every device has to sign in again.", done="signed out")
    async def sign_out(self, session: AsyncSession, record: User, caller: Principal) -> None:
        await service.may_manage(session, caller, record)
        await sessions.end(session, key_of(record), reason="signed out in the console")

    @record_action("Activate", question="They can sign in again.", done="activated")
    async def activate(self, session: AsyncSession, record: User, caller: Principal) -> None:
        await service.may_manage(session, caller, record)
        await service.update_user(session, record, is_active=True)

    @record_action(
        "Deactivate",
        question="They are signed out everywhere, and stay out until somebody activates them. Nothing is deleted.",
        done="deactivated",
    )
    async def deactivate(self, session: AsyncSession, record: User, caller: Principal) -> None:
        await service.may_manage(session, caller, record)
        await service.update_user(session, record, is_active=False)


def show_account(user_id: int | None, request: Request) -> Markup:
    """Which account it is, as a link for those who may open it."""
    if user_id is None:
        return show_nothing(None)
    name = Markup("Account {}").format(user_id)
    if not UserView.is_open_to(request.state.principal, "view"):
        return name
    address = request.url_for("admin:details", identity=UserView.identity, pk=user_id)
    return Markup('<a href="{}">{}</a>').format(address, name)


class SessionView(ConsoleView, model=UserSession):
    """Who is signed in, where. Deleting one signs that device out."""

    scope = "sessions"
    can_export = False  # they come and go
    removal = "Sign out", "The device has to sign in again.", "signed out"
    belongs_to: ClassVar[Mapping[Any, str]] = {UserSession.user_id: "user"}
    name, name_plural = "Session", "Sessions"
    filters: ClassVar[tuple[Filter, ...]] = (
        Related(UserSession.user_id, "user"),
        Choice(UserSession.kind, [("token", "Token"), ("console", "Console")]),
        DateRange(UserSession.last_seen_at),
        DateRange(UserSession.expires_at),
    )
    icon = "fa-solid fa-right-to-bracket"
    column_list: ClassVar[list[Any]] = [
        UserSession.id,
        UserSession.user_id,
        UserSession.kind,
        UserSession.method,
        UserSession.address,
        UserSession.user_agent,
        UserSession.last_seen_at,
        UserSession.expires_at,
    ]
    column_details_list: ClassVar[list[Any]] = [*column_list, UserSession.created_at]
    column_searchable_list: ClassVar[list[Any]] = [UserSession.address, UserSession.user_agent]
    column_sortable_list: ClassVar[list[Any]] = [UserSession.id, UserSession.user_id, UserSession.last_seen_at]
    column_labels: ClassVar[dict[Any, str]] = {
        "id": "ID",
        "user_id": "Account",
        "kind": "Kind",
        "method": "Signed in by",
        "address": "Address",
        "user_agent": "Device",
        "last_seen_at": "Last seen",
        "expires_at": "Ends",
        "created_at": "Began",
    }

    async def remove(self, session: AsyncSession, record: UserSession, caller: Principal) -> None:
        await service.may_manage(session, caller, await service.get_user(session, record.user_id))
        await sessions.end(session, record.user_id, reason="ended in the console", only=record.id)
