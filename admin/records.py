"""What the page of a record has besides SQLAdmin's: the difference when two edit at once, and what belongs to it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from backend.core.console import ConsoleView, show_time
from backend.core.console_forms import VERSION
from backend.core.console_history import History
from backend.core.db import Database
from backend.core.models import is_deleted, utc_now

SHOWN = 5  # of the records that belong to one
SPANS = ((86_400, "day"), (3600, "hour"), (60, "minute"))  # seconds


def ago(moment: datetime) -> str:
    """`2 minutes ago`."""
    seconds = (utc_now() - moment).total_seconds()
    for length, name in SPANS:
        if seconds >= length:
            many = int(seconds // length)
            return f"{many} {name}{'' if many == 1 else 's'} ago"
    return "a moment ago"


def as_text(value: Any) -> str:
    """A field's value as a form would show it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "Yes" if value else "No"
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(str(one) for one in value)
    return str(value)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A field of a form that two people want different. `stored` and `mine` are texts."""

    label: str
    stored: str
    mine: str


@dataclass(frozen=True, kw_only=True)
class Conflict:
    """What somebody else has saved while the person was editing. `version`: of what is stored now."""

    told: str
    version: int
    differences: list[Difference]


@dataclass(frozen=True, kw_only=True)
class Belongings:
    """The newest of another view's records that belong to this one. `all`: their list; `new`: the form for one."""

    view: ConsoleView
    names: list[str]  # of the columns shown
    rows: list[Any]
    more: bool
    all: str
    new: str | None


def history_of(request: Request) -> History | None:
    """The app's history of records, when a feature keeps one."""
    found: History | None = request.app.state.registry.history
    return found


def key_text(record: Any) -> str:
    return str(record.id)


class Records:
    """Goes before SQLAdmin's `Admin` among the console's bases."""

    def view_of(self, request: Request, verb: str) -> ConsoleView:
        """The view that the address names; 404 when there is none, 403 when the person may not do this there."""
        view: ConsoleView = self._find_model_view(request.path_params["identity"])  # type: ignore[attr-defined]
        if not view.is_open_to(request.state.principal, verb):
            raise HTTPException(403)
        return view

    def is_changeable(self, request: Request, view: ConsoleView, record: Any) -> bool:
        """Whether the person may edit this record."""
        return not is_deleted(record) and view.can_edit and view.is_open_to(request.state.principal, "edit")

    def has_history(self, request: Request, view: ConsoleView) -> bool:
        return history_of(request) is not None and getattr(view.model, "__audited__", True)

    async def belongings(self, request: Request, view: ConsoleView, record: Any) -> list[Belongings]:
        """What other views show of this record: one statement each, which reads no more than is shown."""
        views = [one for one in self.views if isinstance(one, ConsoleView)]  # type: ignore[attr-defined]
        return [
            await self._belonging(request, child, column, record)
            for child in views
            for column, identity in child.belongs_to.items()
            if identity == view.identity and child.is_open_to(request.state.principal, "list")
        ]

    async def _belonging(self, request: Request, child: ConsoleView, column: Any, record: Any) -> Belongings:
        key = child.pk_columns[0]
        mine = child.list_query(request).where(column == record.id).order_by(key.desc()).limit(SHOWN + 1)
        async with child.session_maker() as session:
            rows = list((await session.execute(mine)).scalars())
        names = [name for name in child._list_prop_names if name != column.key]  # noqa: SLF001  SQLAdmin's own
        address = request.url_for("admin:list", identity=child.identity)
        new = request.url_for("admin:create", identity=child.identity)
        creatable = (
            column.key in child.lookups and child.can_create and child.is_open_to(request.state.principal, "create")
        )
        return Belongings(
            view=child,
            names=names,
            rows=rows[:SHOWN],
            more=len(rows) > SHOWN,
            all=str(address.include_query_params(**{f"f_{column.key}": record.id})),
            new=str(new.include_query_params(**{column.key: record.id})) if creatable else None,
        )

    def time(self, moment: datetime) -> Markup:
        return show_time(moment)

    async def edit(self, request: Request) -> Response:
        page: Response = await super().edit(request)  # type: ignore[misc]
        if hasattr(request.state, "conflict"):
            page.status_code = 409
        return page

    async def conflict(self, request: Request, view: ConsoleView, form: Any) -> Conflict | None:
        """What stands between the form that was sent and the record; None when nothing does."""
        mine: dict[str, Any] = getattr(request.state, "conflict", {})
        record = await view.get_object_for_edit(request) if mine else None
        if record is None:
            return None
        stored = await view.get_form_data_for_edit(record)
        pairs = ((name, as_text(stored[name]), as_text(mine[name])) for name in mine if name in stored)
        return Conflict(
            told=await self._told(request, record),
            version=stored[VERSION],
            differences=[
                Difference(label=form[name].label.text, stored=was, mine=wanted)
                for name, was, wanted in pairs
                if name != VERSION and was != wanted and stored[name] != mine[name]
            ],
        )

    async def _told(self, request: Request, record: Any) -> str:
        """Who changed it, and when."""
        if (history := history_of(request)) is not None:
            database: Database = request.app.state.database
            async with database.session(reading=True) as session:
                changes = await history.newest(session, record.__tablename__, key_text(record), limit=1)
            if changes:
                return f"Changed by {changes[0].by} {ago(changes[0].at)}"
        return f"Changed {ago(record.updated_at)}"
