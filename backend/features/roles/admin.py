"""Roles in the console, and who holds them."""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar

from markupsafe import Markup
from sqlalchemy import select
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request
from wtforms import Field, Form, SelectField, SelectMultipleField

from backend.core.auth import Permission, Principal
from backend.core.console import ConsoleView, show_nothing
from backend.core.console_filters import DateRange, Filter, Related
from backend.core.console_lookup import LookupField
from backend.features.roles import holders, service
from backend.features.roles.models import Role, UserRole
from backend.features.roles.schemas import HolderForm, RoleIn
from backend.features.users.admin import show_account
from backend.features.users.service import get_user

GONE = "No feature knows it: it permits nothing"
VERBS = ("list", "view", "create", "edit", "delete", "export", "import")  # the columns of the grid; the rest is words


def _box(field: Field, name: str, *, label: str, shown: bool, hint: str = "") -> Markup:
    ticked = Markup(" checked") if name in (field.data or ()) else ""
    unseen = Markup('<span class="visually-hidden">{}</span>')
    seen = Markup('<span class="form-check-label">{}</span><span class="form-check-description">{}</span>')
    words = (seen if shown else unseen).format(label, hint)
    return Markup(
        '<label class="form-check" title="{}"><input class="form-check-input" type="checkbox" name="{}" value="{}"{}>'
        "{}</label>"
    ).format(hint or label, field.name, name, ticked, words)


def _grid_row(field: Field, scope: str, name: str, verbs: Mapping[str, str]) -> Markup:
    """What can be done with the records called `name`. `verbs`: with what each means."""
    cells = [
        _box(field, f"{scope}:{verb}", label=verbs[verb], shown=False) if verb in verbs else Markup("")
        for verb in VERBS
    ]
    others = [
        _box(field, f"{scope}:{verb}", label=verb.replace("_", " ").capitalize(), shown=True)
        for verb in verbs
        if verb not in VERBS
    ]
    row = Markup("").join(
        Markup('<td data-label="{}">{}</td>').format(verb.capitalize(), cell)
        for verb, cell in zip((*VERBS, "other"), (*cells, Markup("").join(others)), strict=True)
    )
    return Markup('<tr><th scope="row">{}</th>{}</tr>').format(name, row)


def grid(names: Mapping[str, str], field: Field, **attributes: Any) -> Markup:
    """A table of what can be done in the console, below it a box for each of the other permissions.

    `names`: what the records are called, by the scopes of their permissions.
    What is stored and no choice any more has a box, too.
    """
    choices: dict[str, Permission | None] = {name: permission for permission, name in field.choices}
    choices |= dict.fromkeys(sorted({*(field.data or ())} - choices.keys()))
    scopes: dict[str, dict[str, str]] = {}
    rest = []
    for name, permission in choices.items():
        scope, _, verb = name.partition(":")
        if permission is not None and permission.console:
            scopes.setdefault(scope, {})[verb] = permission.summary
        else:
            hint = permission.summary if permission else GONE
            rest.append(_box(field, name, label=name, shown=True, hint=hint))
    head = Markup("").join(Markup('<th scope="col">{}</th>').format(verb.capitalize()) for verb in (*VERBS, "other"))
    rows = Markup("").join(_grid_row(field, scope, names.get(scope, scope), scopes[scope]) for scope in sorted(scopes))
    return Markup(
        '<div id="{}" role="group" aria-label="{}" aria-describedby="{}"><div class="scroll">'
        '<table class="table permissions"><caption>In the console</caption>'
        '<thead><tr><th scope="col">Records</th>{}</tr></thead>'
        '<tbody>{}</tbody></table></div><p class="form-label">Elsewhere</p>{}</div>'
    ).format(field.id, field.label.text, attributes.get("aria_describedby", ""), head, rows, Markup("").join(rest))


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
        return {"permissions": SelectMultipleField("Permissions", description=hint, validate_choice=False)}

    async def scaffold_form(self, rules: list[str] | None = None) -> type[Form]:
        form = await super().scaffold_form(rules)
        async with self.session_maker() as session:
            declared = service.declared(session)
        form.permissions.kwargs["choices"] = [(one, name) for name, one in declared.items()]
        views = [view for view in self._admin_ref.views if isinstance(view, ConsoleView)]
        form.permissions.kwargs["widget"] = partial(grid, {view.scope: view.name_plural for view in views})
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
    return show_account(getattr(row, name), request)


class RoleHolderView(ConsoleView, model=UserRole):
    """Who holds which role. A new row gives a role, a deleted one takes it."""

    scope = "role_holders"
    removal = "Take away", "The person loses what the role permits.", "taken away"
    form_schema = HolderForm
    lookups: ClassVar[Mapping[str, str]] = {"user_id": "user"}
    belongs_to: ClassVar[Mapping[Any, str]] = {UserRole.user_id: "user", UserRole.role_id: "role"}
    filters: ClassVar[tuple[Filter, ...]] = (
        Related(UserRole.role_id, "role", "Role"),
        Related(UserRole.user_id, "user"),
        DateRange(UserRole.granted_at),
    )
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
        return {
            "user_id": LookupField("Person", description="Who shall hold the role: type how the address begins."),
            "role_id": SelectField("Role", coerce=int, render_kw={"class": "form-select"}),
        }

    async def scaffold_form(self, rules: list[str] | None = None) -> type[Form]:
        form = await super().scaffold_form(rules)
        async with self.session_maker() as session:
            roles = await session.execute(select(col(Role.id), col(Role.name)).order_by(col(Role.name)))
        form.role_id.kwargs["choices"] = [tuple(role) for role in roles]
        return form

    async def create(self, session: AsyncSession, form: HolderForm, caller: Principal) -> UserRole:
        user = await get_user(session, form.user_id)
        return await holders.give_role(session, user, form.role_id, caller=caller)

    async def remove(self, session: AsyncSession, record: UserRole, caller: Principal) -> None:
        await holders.take_role(session, await get_user(session, record.user_id), record.role_id, caller=caller)
