"""The history of a record: who changed what, before and after; and putting it back as it was, after a look at what that
would change.

It walks back from what is stored now: the oldest change after the chosen moment tells what a field held then.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any

from markupsafe import Markup
from pydantic import ValidationError
from sqladmin.authentication import login_required
from sqladmin.templating import Jinja2Templates
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from admin.messages import redirect_with
from admin.records import history_of, key_text
from backend.core.console import DELETED, NO_SUCH_RECORD, ConsoleView, Refused, record_id
from backend.core.console_forms import VERSION, text_fields
from backend.core.console_history import Change, Held, History, undone
from backend.core.db import CENT, Money
from backend.core.models import is_deleted

PAGE = 20  # changes
BATCH = 500  # changes read by one statement while walking back
MOMENTS = ("before", "after")
HAPPENED = {"created": "Created", "updated": "Changed", "deleted": "Deleted"}
NO_SUCH_CHANGE = "There is no such change"
EMPTY = Markup('<span class="nothing">empty</span>')
TOO_OLD = "What was stored then is not allowed any more: {}"


@dataclass(frozen=True, kw_only=True)
class Field:
    """A field of a change, or of a record that would be put back. `secret`: its values are not known here."""

    label: str
    before: Any
    after: Any
    secret: bool = False


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A change as the page shows it."""

    change: Change
    happened: str
    fields: list[Field]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What putting a record back would do. `data`: for the view's form. `left`: what stays as it is, and why."""

    data: dict[str, Any]
    fields: list[Field]
    left: list[str]


def _label(view: ConsoleView, name: str) -> str:
    return str(view._column_labels.get(name) or name.replace("_", " ").capitalize())  # noqa: SLF001  SQLAdmin's own


def _typed(view: ConsoleView, name: str, value: Any) -> Any:
    """A value of the history as the record holds it: JSON knows no moments and no decimals."""
    column = view._mapper.columns.get(name)  # noqa: SLF001
    if column is not None and isinstance(column.type, Money) and isinstance(value, str):
        return Decimal(value).quantize(CENT)  # the log has what was assigned: 12, where 12.00 is stored
    kind = column.type.python_type if column is not None else None
    if not (isinstance(value, str) and isinstance(kind, type)):
        return value
    if issubclass(kind, date):
        return kind.fromisoformat(value)
    return kind(value) if issubclass(kind, Decimal | Enum) else value


def _shown(view: ConsoleView, name: str, value: Any) -> Any:
    if value == "":
        return EMPTY
    try:
        return view._default_formatter_detail(_typed(view, name, value))  # noqa: SLF001
    except (ValueError, ArithmeticError):  # a cut text, or a column that was of another type
        return value


def _visible(view: ConsoleView) -> set[str]:
    """The fields that the view shows anyway."""
    return {*view._details_prop_names, *view._list_prop_names, *view._form_prop_names}  # noqa: SLF001


def _happened(change: Change) -> str:
    if (gone := change.fields.get("deleted_at")) and change.what == "updated":
        return "Restored" if gone[1].value is None else "Deleted"
    return HAPPENED.get(change.what, change.what)


def _of(view: ConsoleView, change: Change) -> Shown:
    """What the person may see of a change: of a secret, that it changed."""
    visible = _visible(view)
    fields = [
        Field(
            label=_label(view, name),
            before=_shown(view, name, before.value),
            after=_shown(view, name, after.value),
            secret=before.secret or after.secret,
        )
        for name, (before, after) in change.fields.items()
        if name in visible or before.secret or after.secret
    ]
    return Shown(change=change, happened=_happened(change), fields=fields)


def _history(request: Request) -> History:
    if (history := history_of(request)) is None:
        raise HTTPException(404)
    return history


async def _walked_back(request: Request, table: str, key: str, change: int, moment: str) -> dict[str, Held]:
    """What the fields held before, or after, this change; those that nothing has changed since are not in it."""
    history, database = _history(request), request.app.state.database
    held: dict[str, Held] = {}
    async with database.session(reading=True) as session:
        chosen = await history.following(session, table, key, after=change - 1, limit=1)
        if not chosen or chosen[0].id != change or (moment == "before" and chosen[0].what == "created"):
            raise HTTPException(404, NO_SUCH_CHANGE)
        after: int | None = change - 1 if moment == "before" else change
        while after is not None:
            changes = await history.following(session, table, key, after=after, limit=BATCH)
            held = undone(changes) | held
            after = changes[-1].id if len(changes) == BATCH else None
    return held


def _plan(view: ConsoleView, record: Any, now: Mapping[str, Any], then: Mapping[str, Held]) -> Plan:
    data, fields, left = {name: value for name, value in now.items() if name != VERSION}, [], []
    for name, held in then.items():
        if not held.whole:
            left.append(f"{_label(view, name)}: the history does not keep all of it")
        elif name in data:
            value = _typed(view, name, held.value)
            if value != now[name]:
                data[name] = value
                shown = _shown(view, name, now[name]), _shown(view, name, held.value)
                fields.append(Field(label=_label(view, name), before=shown[0], after=shown[1]))
        elif name in _visible(view) and getattr(record, name, None) != _typed(view, name, held.value):
            left.append(f"{_label(view, name)}: the form does not change it")
    return Plan(data=data, fields=fields, left=left)


async def _record(view: ConsoleView, request: Request) -> Any:
    record_id(request.path_params["pk"])
    return await view.get_object_for_edit(request)


class Histories(ABC):
    """The console's pages of a record's history, and of putting it back."""

    templates: Jinja2Templates

    @abstractmethod
    def view_of(self, request: Request, verb: str) -> ConsoleView: ...

    @abstractmethod
    def is_changeable(self, request: Request, view: ConsoleView, record: Any) -> bool: ...

    @login_required
    async def history(self, request: Request) -> Response:
        """Newest first, from the change before `?before=` on."""
        view = self.view_of(request, "view")
        record, key = await _record(view, request), str(record_id(request.path_params["pk"]))
        cursor, database = request.query_params.get("before"), request.app.state.database
        before = record_id(cursor) if cursor is not None else None
        async with database.session(reading=True) as session:
            changes = await _history(request).newest(session, _table(view), key, before=before, limit=PAGE + 1)
        if record is None and not changes:
            raise HTTPException(404, NO_SUCH_RECORD)
        context = {
            "model_view": view,
            "record": record,
            "pk": key,
            "name": str(record) if record is not None else f"{view.name} {key}, which is gone",
            "changes": [_of(view, change) for change in changes[:PAGE]],
            "following": changes[PAGE - 1].id if len(changes) > PAGE else None,
            "first": before is None,
            "may_restore": record is not None and self.is_changeable(request, view, record),
        }
        return await self.templates.TemplateResponse(request, "sqladmin/history.html", context)

    @login_required
    async def restore(self, request: Request) -> Response:
        """What putting it back as it was `?moment=before`, or `after`, `?change=7` would change; by POST, does it."""
        view = self.view_of(request, "edit")
        record = await _there(view, request)
        change, moment = record_id(request.query_params.get("change", "")), request.query_params.get("moment", "")
        if moment not in MOMENTS:
            raise HTTPException(404, NO_SUCH_CHANGE)
        then = await _walked_back(request, _table(view), key_text(record), change, moment)
        plan = _plan(view, record, await view.get_form_data_for_edit(record), then)
        problem, status = None, 200
        if request.method == "POST":
            try:
                await _put_back(view, request, key_text(record), plan)
            except Refused as refused:
                problem, status = str(refused), refused.status
            else:
                url = request.url_for("admin:details", identity=view.identity, pk=record.id)
                return redirect_with(request, str(url), f"{view.name} is as it was {moment} that change.")
            record = await _there(view, request)  # somebody else may have been faster: the next look is at theirs
            plan = _plan(view, record, await view.get_form_data_for_edit(record), then)
        context = {"model_view": view, "record": record, "moment": moment, "plan": plan, "problem": problem}
        return await self.templates.TemplateResponse(request, "sqladmin/restore.html", context, status)

    def history_routes(self) -> list[Route]:
        return [
            Route("/{identity}/history/{pk}", self.history, name="history"),
            Route("/{identity}/restore/{pk}", self.restore, methods=["GET", "POST"], name="restore"),
        ]


def _table(view: ConsoleView) -> str:
    return str(view.model.__tablename__)  # type: ignore[attr-defined]


async def _there(view: ConsoleView, request: Request) -> Any:
    """The record, which has to be there to be put back."""
    record = await _record(view, request)
    if record is None:
        raise HTTPException(404, NO_SUCH_RECORD)
    if is_deleted(record):
        raise HTTPException(409, DELETED)
    return record


async def _put_back(view: ConsoleView, request: Request, key: str, plan: Plan) -> None:
    version = (await text_fields(request)).get(VERSION) or "0"  # without one, nothing is overwritten
    try:
        await view.update_model(request, key, {**plan.data, VERSION: str(version)})
    except ValidationError as exc:
        raise Refused(TOO_OLD.format(exc.errors()[0]["msg"]), 422) from exc
