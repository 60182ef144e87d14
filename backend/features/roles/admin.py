"""Roles in the console, and who holds them."""

from typing import Any, ClassVar

from markupsafe import Markup
from sqlalchemy import select
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request
from wtforms import EmailField, Field, Form, SelectField, SelectMultipleField

from backend.core.auth import Principal
from backend.core.console import ConsoleView, show_nothing
from backend.features.roles import holders, service
from backend.features.roles.models import Role, UserRole
from backend.features.roles.schemas import HolderForm, RoleIn
from backend.features.users.service import get_user

GONE = "No feature knows it: it permits nothing"


def boxes(field: Field, **attributes: Any) -> Markup:
    """A box to tick for every choice, with what it means below its name; those stored but no choice any more too."""
    box = Markup(
        '<label class="form-check"><input class="form-check-input" type="checkbox" name="{}" value="{}"{}>'
        '<span class="form-check-label">{}</span><span class="form-check-description">{}</span></label>'
    )
    ticked, choices = set(field.data or ()), dict(field.choices)
    choices |= dict.fromkeys(sorted(ticked - choices.keys()), GONE)
    rows = (
        box.format(field.name, name, Markup(" checked") if name in ticked else "", name, meaning)
        for name, meaning in choices.items()
    )
    hint = attributes.get("aria_describedby", "")
    return Markup('<div id="{}" role="group" aria-label="{}" aria-describedby="{}">{}</div>').format(
        field.id, field.label.text, hint, Markup("").join(rows)
    )


def show_permissions(role: Role, _name: str) -> Markup:
    if not role.permissions:
        return show_nothing(None)
    return Markup(", ").join(sorted(role.names))


def show_holders(role: Role, _name: str, request: Request) -> Markup:
    address = request.url_for("admin:list", identity="user-role").include_query_params(search=role.name)
    return Markup('<a href="{}">Who holds this role</a>').format(address)


class RoleView(ConsoleView, model=Role):
    scope = "roles"
    removal = "Delete", "Those who hold it lose it.", "deleted"
    form_schema = RoleIn
    icon = "fa-solid fa-id-badge"
    column_list: ClassVar[list[Any]] = [Role.id, Role.name, Role.summary, "permissions"]
    column_details_list: ClassVar[list[Any]] = [
        *column_list,
        "holders",
        Role.created_at,
        Role.updated_at,
        Role.version,
    ]
    column_searchable_list: ClassVar[list[Any]] = [Role.name, Role.summary]
    column_sortable_list: ClassVar[list[Any]] = [Role.id, Role.name]
    column_formatters: ClassVar[dict[Any, Any]] = {"permissions": show_permissions}
    column_formatters_detail: ClassVar[dict[Any, Any]] = {**column_formatters, "holders": show_holders}
    column_labels: ClassVar[dict[Any, str]] = {
        "id": "ID",
        "name": "Name",
        "summary": "Summary",
        "permissions": "Permissions",
        "holders": "Holders",
        "created_at": "Created",
        "updated_at": "Updated",
        "version": "Version",
    }
    form_columns: ClassVar[list[Any]] = [Role.name, Role.summary]

    def extra_fields(self) -> dict[str, Field]:
        hint = "You can tick only what you hold yourself."
        # the service judges what is sent: it knows the reasons
        return {
            "permissions": SelectMultipleField("Permissions", description=hint, validate_choice=False, widget=boxes)
        }

    async def scaffold_form(self, rules: list[str] | None = None) -> type[Form]:
        form = await super().scaffold_form(rules)
        async with self.session_maker() as session:
            declared = service.declared(session)
        form.permissions.kwargs["choices"] = [(name, one.summary) for name, one in declared.items()]
        return form

    async def get_form_data_for_edit(self, obj: Any) -> dict[str, Any]:
        return await super().get_form_data_for_edit(obj) | {"permissions": sorted(obj.names)}

    async def create(self, session: AsyncSession, form: RoleIn, caller: Principal) -> Role:
        return await service.create_role(session, caller=caller, **form.model_dump())

    async def change(self, session: AsyncSession, record: Role, form: RoleIn, caller: Principal) -> Role:
        return await service.update_role(session, record, caller=caller, **form.model_dump())

    async def remove(self, session: AsyncSession, record: Role, caller: Principal) -> None:
        await service.delete_role(session, record, caller=caller)


def show_person(row: UserRole, name: str, request: Request) -> Markup:
    user_id = getattr(row, name)
    if user_id is None:
        return show_nothing(None)
    address = request.url_for("admin:details", identity="user", pk=user_id)
    return Markup('<a href="{}">Account {}</a>').format(address, user_id)


class RoleHolderView(ConsoleView, model=UserRole):
    """Who holds which role. A new row gives a role, a deleted one takes it."""

    scope = "role_holders"
    removal = "Take away", "The person loses what the role permits.", "taken away"
    form_schema = HolderForm
    name, name_plural = "Role holder", "Role holders"
    icon = "fa-solid fa-user-tag"
    column_list: ClassVar[list[Any]] = [
        UserRole.id,
        "email",
        "role_name",
        UserRole.user_id,
        UserRole.granted_at,
        UserRole.granted_by,
    ]
    column_details_list = column_list
    column_searchable_list: ClassVar[list[Any]] = ["email", "role_name"]
    column_sortable_list: ClassVar[list[Any]] = [UserRole.id, "email", "role_name", UserRole.granted_at]
    column_formatters: ClassVar[dict[Any, Any]] = {UserRole.user_id: show_person, UserRole.granted_by: show_person}
    column_formatters_detail = column_formatters
    column_labels: ClassVar[dict[Any, str]] = {
        "id": "ID",
        "email": "E-mail",
        "role_name": "Role",
        "user_id": "Account",
        "granted_at": "Granted",
        "granted_by": "Granted by",
    }
    form_columns: ClassVar[list[Any]] = [UserRole.role_id]  # SQLAdmin makes no field of a foreign key: see below

    def extra_fields(self) -> dict[str, Field]:
        attributes = {"class": "form-control", "autocomplete": "off"}
        return {
            "email": EmailField("E-mail", description="Of the person who shall hold the role.", render_kw=attributes),
            "role_id": SelectField("Role", coerce=int, render_kw={"class": "form-select"}),
        }

    async def scaffold_form(self, rules: list[str] | None = None) -> type[Form]:
        form = await super().scaffold_form(rules)
        async with self.session_maker() as session:
            roles = await session.execute(select(col(Role.id), col(Role.name)).order_by(col(Role.name)))
        form.role_id.kwargs["choices"] = [tuple(role) for role in roles]
        return form

    async def create(self, session: AsyncSession, form: HolderForm, caller: Principal) -> UserRole:
        user = await holders.holder_of(session, form.email)
        return await holders.give_role(session, user, form.role_id, caller=caller)

    async def remove(self, session: AsyncSession, record: UserRole, caller: Principal) -> None:
        await holders.take_role(session, await get_user(session, record.user_id), record.role_id, caller=caller)
