"""The bases of the console's views and pages: SQLAdmin's with their sharp edges taken off. They live in the features.

A view reads through SQLAdmin and writes through its feature's service: the rules of the API hold in the console too.
What depends on SQLAdmin's inside is here, in `console_forms` and in the `admin` package.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from types import NoneType
from typing import Any, ClassVar, TypeVar

import structlog
from markupsafe import Markup
from pydantic import BaseModel
from sqladmin import BaseView, ModelView
from sqlalchemy import Select, String, cast, or_
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from wtforms import Field, Form

from backend.core.auth import Permission, Principal, Rank
from backend.core.console_actions import RecordAction, acted, offered
from backend.core.console_filters import Active, Control, Filter, active, conditions
from backend.core.console_forms import VERSION, held_to, stated
from backend.core.console_lookup import begins
from backend.core.console_paging import Listing, Order, listing
from backend.core.db import MAX_ID, Database
from backend.core.errors import AppError, Forbidden, NotFound, of_database
from backend.core.events import emit
from backend.core.models import Recoverable, is_deleted, key_of

log = structlog.get_logger(__name__)

T = TypeVar("T")

SEARCH_MAX = 100  # characters, as in the API
AT_ONCE = 1000  # records that one action may be run for
CHUNK = 500  # records read by one statement

STALE = "Somebody else changed this record in the meantime. Nothing was saved: look at the difference first"
OUR_FAULT = "Something went wrong on our side. It has been logged"
NO_SUCH_RECORD = "There is no such record"
DELETED = "This record is deleted. Restore it first"
WITH_DELETED = frozenset({"restore", "purge"})  # actions of views whose records are recoverable


class Refused(ValueError):
    """What the person at the console asked for cannot be; the sentence says why, without SQL or secrets."""

    def __init__(self, message: str, status: int = 400) -> None:
        self.status = status
        super().__init__(message)


class Stale(Refused):
    """Somebody else has saved the record since the person opened the form."""


# What frameworks say in one word.
SAID = {"Forbidden": Forbidden.message, "Not Found": NotFound.message}


def refusal(exc: Exception) -> Refused:
    """Any exception, as a sentence and a status. A bug is logged: nobody else will."""
    if isinstance(exc, Refused):
        return exc
    if isinstance(exc, AppError):
        return Refused(exc.text, exc.status)
    if isinstance(exc, HTTPException):
        return Refused(SAID.get(exc.detail, exc.detail), exc.status_code)
    if known := of_database(exc):
        return Refused(known.text, known.status)
    log.error("console_error", exc_info=exc)
    return Refused(OUR_FAULT, 500)


def record_id(text: str) -> int:
    """The id in an address; a bad one is 404, as in the API (SQLAdmin: 500)."""
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_ID)) and 0 < int(text) <= MAX_ID):
        raise HTTPException(404, NO_SUCH_RECORD)
    return int(text)


def show_bool(value: bool) -> Markup:
    icon, words = ("fa-circle-check", "Yes") if value else ("fa-circle-xmark", "No")
    return Markup('<span class="flag flag-{}"><i class="fa-solid {}" aria-hidden="true"></i> {}</span>').format(
        words.lower(), icon, words
    )


def show_time(value: datetime) -> Markup:
    """In UTC; the page's script puts the person's own time in its place, and this stays its title."""
    moment = value.astimezone(UTC)
    text = f"{moment:%Y-%m-%d %H:%M} UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(moment.isoformat(), text, text)


def show_nothing(_value: None) -> Markup:
    return Markup('<span class="nothing">none</span>')


class ConsoleView(ModelView):
    """A table in the console. Say what is shown (never "all columns"), who may do what, and how to write.

    Each thing that can be done has a permission of its own, `items:delete`; roles bundle them.
    """

    scope: ClassVar[str]  # what the permissions are called: `items` makes `items:list`, `items:view`, …
    sees: ClassVar[Rank] = Rank.STAFF  # the lowest rank that may look without a role
    changes: ClassVar[Rank] = Rank.ADMIN  # and the lowest that may do the rest
    removal: ClassVar[tuple[str, str, str]] = ("Delete", "This cannot be undone.", "deleted")  # what it is called here
    removal_is_dangerous: ClassVar[bool] = False  # asks for the password
    actions: ClassVar[Mapping[str, RecordAction]]  # by name, deleting among them
    form_schema: ClassVar[type[BaseModel]]  # the API's own rules, applied to every form
    lookups: ClassVar[Mapping[str, str]] = {}  # fields of the form that refer to a record → the view that shows those

    # Columns that name a record → its view, whose pages show some of these.
    belongs_to: ClassVar[Mapping[Any, str]] = {}

    can_export = True  # the columns of the record's page; say False where nobody needs them as a file
    filters: ClassVar[tuple[Filter, ...]] = ()  # of the list
    prefix_searchable: ClassVar[tuple[Any, ...]] = ()  # of a large table: what a search begins with, by an index
    column_edit_list: ClassVar[Sequence[Any]] = ()  # columns of the form that may be changed in the list

    create_template = edit_template = "sqladmin/form.html"
    page_size = 25
    page_size_options: ClassVar[list[int]] = [25, 50, 100]
    column_default_sort: ClassVar[Any] = ("id", True)
    column_type_formatters: ClassVar[dict[type, Callable[[Any], Any]]] = {
        NoneType: show_nothing,
        bool: show_bool,
        datetime: show_time,
    }

    @property
    def link_name(self) -> str:
        """The column of the list that leads to the record: the first after the key."""
        keys = {key.name for key in self.pk_columns}
        return next((name for name in self._list_prop_names if name not in keys), "id")

    def __init_subclass__(cls) -> None:
        """What a view does not implement is not offered."""
        cls.can_create = cls.create is not ConsoleView.create
        cls.can_edit = cls.change is not ConsoleView.change
        cls.can_delete = cls.remove is not ConsoleView.remove
        label, question, done = cls.removal
        delete = RecordAction(
            name="delete", label=label, question=question, done=done, run=_remove, dangerous=cls.removal_is_dangerous
        )
        found = [*offered(cls), *([delete] if cls.can_delete else [])]
        cls.actions = {action.name: action for action in found}

    @classmethod
    def permissions(cls) -> tuple[Permission, ...]:
        """One for each thing that can be done here."""
        plural = cls.name_plural.lower()
        doings = {"list": f"See the list of {plural}", "view": f"See {plural} whole"}
        doings |= {"create": f"Create {plural}"} if cls.can_create else {}
        doings |= {"edit": f"Change {plural}"} if cls.can_edit else {}
        doings |= {"export": f"Export {plural}"} if cls.can_export else {}
        doings |= {"import": f"Import {plural}"} if cls.can_import else {}
        doings |= {one.name: f"{one.label} {plural}" for one in cls.actions.values() if not one.permission}
        ranks = {"list": cls.sees, "view": cls.sees}
        ranks |= {action.name: action.rank for action in cls.actions.values() if action.rank is not None}
        return tuple(
            Permission(name=f"{cls.scope}:{verb}", summary=text, rank=ranks.get(verb, cls.changes), console=True)
            for verb, text in doings.items()
        )

    @classmethod
    def is_open_to(cls, caller: Principal, verb: str) -> bool:
        """Whether the caller may `list`, `view`, `create`, `edit`, `export`, `import` or do an action, by its name."""
        action = cls.actions.get(verb)
        held = caller.may(action.permission if action and action.permission else f"{cls.scope}:{verb}")
        return held or (verb == "list" and caller.may(f"{cls.scope}:view"))  # who opens records has to find them

    @classmethod
    def is_recoverable(cls) -> bool:
        """Whether deleting only marks records, which `restore` brings back and `purge` ends."""
        return issubclass(cls.model, Recoverable)

    def shows_deleted(self, request: Request) -> bool:
        return self.is_recoverable() and bool(request.query_params.get("deleted"))

    def list_query(self, request: Request) -> Select[Any]:
        """Without what is deleted, unless the address asks for just that: `?deleted=1`."""
        statement: Select[Any] = super().list_query(request)
        if not self.is_recoverable():
            return statement
        marked: Any = self.model.deleted_at  # type: ignore[attr-defined]
        return statement.where(marked.is_not(None) if self.shows_deleted(request) else marked.is_(None))

    async def check_can_edit(self, request: Request, model: Any) -> bool:
        return not is_deleted(model) and await super().check_can_edit(request, model)

    async def create(self, session: AsyncSession, form: Any, caller: Principal) -> Any:
        """Store a new record from a checked form and return it."""
        raise Forbidden

    async def create_all(self, session: AsyncSession, forms: Sequence[Any], caller: Principal) -> Sequence[int]:
        """Store new records of an import and return their keys, in order. Override it where one flush can take many."""
        return [key_of(await self.create(session, form, caller)) for form in forms]

    async def change(self, session: AsyncSession, record: Any, form: Any, caller: Principal) -> Any:
        """Change a record as the checked form says and return it."""
        raise Forbidden

    async def remove(self, session: AsyncSession, record: Any, caller: Principal) -> None:
        """Delete a record."""
        raise Forbidden

    async def insert_model(self, request: Request, data: dict[str, Any]) -> Any:
        form = self.form_schema.model_validate(stated(data))
        return await _write(request, lambda session: self.create(session, form, request.state.principal))

    async def update_model(self, request: Request, pk: str, data: dict[str, Any]) -> Any:
        form = self.form_schema.model_validate(stated(data))

        async def change(session: AsyncSession) -> Any:
            record = await self._load(session, pk)
            if data.get(VERSION) not in (None, "", str(record.version)):
                raise Stale(STALE, 409)
            if is_deleted(record):
                raise Refused(DELETED, 409)
            return await self.change(session, record, form, request.state.principal)

        try:
            return await _write(request, change)
        except Refused as refused:
            if isinstance(refused, Stale) or isinstance(refused.__cause__, StaleDataError):
                request.state.conflict = data  # what the person wants; the form shows it beside what is stored
            raise

    def _authorization_actions(self) -> Sequence[str]:
        """What lets somebody see that this is here at all: SQLAdmin's, and our actions."""
        return (*super()._authorization_actions(), *self.actions)

    def open_actions(self, request: Request, record: Any = None) -> Sequence[RecordAction]:
        """Those that the person may do with this record, or else with those that the list shows."""
        deleted = self.shows_deleted(request) if record is None else is_deleted(record)
        caller: Principal = request.state.principal
        return [
            one
            for one in self.actions.values()
            if self.is_open_to(caller, one.name)
            and (not self.is_recoverable() or (one.name in WITH_DELETED) == deleted)
            and (record is not None or not one.template)
        ]

    async def act(self, request: Request, action: RecordAction, ids: Sequence[int], **given: str) -> Sequence[Any]:
        """Do it to all of these records, or to none; what came of each. Refused when it cannot be done to one of them.

        `given`: what the action asked for besides.
        """
        caller: Principal = request.state.principal

        async def work(session: AsyncSession) -> Sequence[Any]:
            results = [
                await action.run(self, session, record, caller, **given) for record in await self.load_all(session, ids)
            ]
            for piece in acted(self.identity, action.name, ids):
                await emit(session, piece)
            return results

        return await _write(request, work)

    async def load_all(self, session: AsyncSession, ids: Sequence[int]) -> Sequence[Any]:
        """The records with these ids, in their order. NotFound when one is missing."""
        found: dict[int, Any] = {}
        for start in range(0, len(ids), CHUNK):
            statement: Any = select(self.model).where(self.pk_columns[0].in_(ids[start : start + CHUNK]))
            found |= {record.id: record for record in (await session.exec(statement)).all()}
        if missing := [one for one in ids if one not in found]:
            raise NotFound(f"{self.name} {missing[0]} is gone" if len(ids) > 1 else NO_SUCH_RECORD)
        return [found[one] for one in ids]

    async def _load(self, session: AsyncSession, pk: str) -> Any:
        record: Any = await session.get(self.model, record_id(pk))
        if record is None:
            raise NotFound(NO_SUCH_RECORD)
        return record

    def extra_fields(self) -> dict[str, Field]:
        """Fields of the form that are no columns of the table, made anew each time; they come last."""
        return {}

    async def scaffold_form(self, rules: list[str] | None = None) -> type[Form]:
        form = await super().scaffold_form(rules)
        for name, field in self.extra_fields().items():
            setattr(form, name, field)
        return held_to(self.form_schema, form)

    async def get_form_data_for_edit(self, obj: Any) -> dict[str, Any]:
        return await super().get_form_data_for_edit(obj) | {VERSION: obj.version}

    def _stmt_by_identifier(self, identifier: str) -> Select[Any]:
        statement: Select[Any] = super()._stmt_by_identifier(str(record_id(str(identifier))))
        return statement

    def matching(self, request: Request) -> Select[Any]:
        """What the address of the list asks for, whatever the page and the order. HTTPException for nonsense."""
        term = self.search_term(request)
        statement: Select[Any] = self.list_query(request).where(*conditions(self.filters, request.query_params))
        if not term:
            return statement
        anywhere = not self.prefix_searchable or bool(request.query_params.get("anywhere"))
        return self.search_query(statement, term, anywhere=anywhere)

    def search_term(self, request: Request) -> str:
        term = request.query_params.get("search", "")
        if len(term) > SEARCH_MAX or "\x00" in term:  # PostgreSQL has no NUL
            raise HTTPException(400, "This cannot be searched for")
        return term

    def search_query(self, stmt: Select[Any], term: str, *, anywhere: bool | None = None) -> Select[Any]:
        """Records that contain the term as it stands; % and _ mean themselves (SQLAdmin: anything).

        Where a view names what is `prefix_searchable`, those that begin with it, unless `anywhere`.
        """
        if self.prefix_searchable and not anywhere:
            return stmt.where(or_(*(begins(one, term) for one in self.prefix_searchable)))
        columns = (cast(getattr(self.model, name), String) for name in self._search_fields)
        return stmt.where(or_(*(column.icontains(term, autoescape=True) for column in columns)))

    def filter_controls(self, request: Request) -> Sequence[Control]:
        """The inputs of all filters, filled with what is asked."""
        return [control for one in self.filters for control in one.controls(request.query_params, self._column_labels)]

    def filters_asked(self, request: Request) -> Sequence[Active]:
        return active(self.filters, request.query_params, self._column_labels)

    def order(self, request: Request) -> Order:
        """By what the list is sorted. The key decides between equals, or pages would overlap."""
        name, descending = request.query_params.get("sortBy"), request.query_params.get("sort") == "desc"
        if not name:
            [(default, descending), *_] = self._get_default_sort()
            name = self._get_prop_name(default)
        elif name not in self._sort_fields:
            raise HTTPException(400, "This cannot be sorted by")
        return Order(getattr(self.model, name), getattr(self.model, self.pk_columns[0].key), descending)

    def sort_query(self, stmt: Select[Any], request: Request) -> Select[Any]:
        return self.order(request).applied(stmt)

    async def list(self, request: Request) -> Listing:  # type: ignore[override]
        """One page, in two statements, however large the table (SQLAdmin counts all of it)."""
        query = request.query_params
        page_size = min(self.validate_page_number(query.get("pageSize"), self.page_size), max(self.page_size_options))
        if page_size < 1:
            raise HTTPException(400, "Invalid page or pageSize parameter")
        statement = self.matching(request)
        async with self.session_maker() as session:
            return await listing(
                session,
                statement,
                self.order(request),
                page=self.validate_page_number(query.get("page"), 1),
                page_size=page_size,
                cursor=query.get("at", ""),
                table=self.pk_columns[0].table.name if self._asks_for_all(request) else None,
            )

    def _asks_for_all(self, request: Request) -> bool:
        """Whether the table's size is about that of the list."""
        narrowed = self.search_term(request) or self.filters_asked(request) or self.shows_deleted(request)
        return not narrowed and type(self).list_query is ConsoleView.list_query

    def validate_page_number(self, number: str | None, default: int) -> int:
        return min(super().validate_page_number(number, default), MAX_ID)


class ConsolePage(BaseView):
    """A page of a feature's own: one method, under SQLAdmin's `@expose`.

    For everybody who is signed in to the console, or for whom `is_accessible` lets in: the menu and the route ask it.
    Its templates are named from the features' folder on: `two_factor/templates/page.html`.
    """

    def is_accessible(self, request: Request) -> bool:
        return True

    async def notice(self, request: Request) -> str | None:
        """What the person should be told on the console's home page, with a link to this one."""
        return None

    async def render(self, request: Request, template: str, status: int = 200, **context: Any) -> Response:
        return await self.templates.TemplateResponse(request, template, {"page": self, **context}, status)


async def _remove(view: ConsoleView, session: AsyncSession, record: Any, caller: Principal) -> None:
    await view.remove(session, record, caller)


async def _write(request: Request, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Run `work` in a session of its own and commit. Whatever fails is Refused: SQLAdmin shows the text on the page."""
    database: Database = request.app.state.database
    try:
        async with database.session() as session:
            result = await work(session)
            await session.commit()
            return result
    except Exception as exc:
        raise refusal(exc) from exc
