"""The bases of the console's views and pages: SQLAdmin's with their sharp edges taken off. They live in the features.

A view reads through SQLAdmin and writes through its feature's service: the rules of the API hold in the console too.
What depends on SQLAdmin's inside is here, in `console_forms` and in the `admin` package.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from types import NoneType
from typing import Any, ClassVar, TypeVar

import structlog
from markupsafe import Markup
from pydantic import BaseModel
from sqladmin import BaseView, ModelView
from sqladmin.pagination import Pagination
from sqlalchemy import Select, String, cast, or_
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from wtforms import Field, Form

from backend.core.auth import Principal
from backend.core.console_forms import VERSION, held_to, stated
from backend.core.db import MAX_ID, Database
from backend.core.errors import AppError, Forbidden, NotFound, of_database

log = structlog.get_logger(__name__)

T = TypeVar("T")

SEARCH_MAX = 100  # characters, as in the API

STALE = "Somebody else changed this record in the meantime. Open it again to see what is stored now"
OUR_FAULT = "Something went wrong on our side. It has been logged"
NO_SUCH_RECORD = "There is no such record"


class Refused(ValueError):
    """What the person at the console asked for cannot be; the sentence says why, without SQL or secrets."""

    def __init__(self, message: str, status: int = 400) -> None:
        self.status = status
        super().__init__(message)


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
    moment = value.astimezone(UTC)
    return Markup('<time datetime="{}">{:%Y-%m-%d %H:%M} UTC</time>').format(moment.isoformat(), moment)


def show_nothing(_value: None) -> Markup:
    return Markup('<span class="nothing">none</span>')


class ConsoleView(ModelView):
    """A table in the console. Say what is shown (never "all columns"), which permissions open it, and how to write."""

    read: ClassVar[str]  # permission to list and view
    write: ClassVar[str]  # permission to create, edit and delete
    form_schema: ClassVar[type[BaseModel]]  # the API's own rules, applied to every form

    can_export = False
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

    async def create(self, session: AsyncSession, form: Any, caller: Principal) -> Any:
        """Store a new record from a checked form and return it."""
        raise Forbidden

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
                raise Refused(STALE, 409)
            return await self.change(session, record, form, request.state.principal)

        return await _write(request, change)

    def may_delete(self, request: Request) -> bool:
        return self._can_delete_any(request)

    async def delete_records(self, request: Request, pks: Sequence[str]) -> None:
        """Delete all of these records, or none. Refused when one of them must stay."""

        async def remove(session: AsyncSession) -> bool:
            for pk in pks:
                await self.remove(session, await self._load(session, pk), request.state.principal)
            return True

        await _write(request, remove)

    async def delete_model(self, request: Request, pk: Any) -> None:
        await self.delete_records(request, [str(pk)])

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

    async def list(self, request: Request) -> Pagination:
        term = request.query_params.get("search", "")
        if len(term) > SEARCH_MAX or "\x00" in term:  # PostgreSQL has no NUL
            raise HTTPException(400, "This cannot be searched for")
        return await super().list(request)

    def search_query(self, stmt: Select[Any], term: str) -> Select[Any]:
        """Records that contain the term as it stands; % and _ mean themselves (SQLAdmin: anything)."""
        columns = (cast(getattr(self.model, name), String) for name in self._search_fields)
        return stmt.where(or_(*(column.icontains(term, autoescape=True) for column in columns)))

    def sort_query(self, stmt: Select[Any], request: Request) -> Select[Any]:
        """The key decides between equals, or pages would overlap."""
        return super().sort_query(stmt, request).order_by(self.pk_columns[0])

    def validate_page_number(self, number: str | None, default: int) -> int:
        return min(super().validate_page_number(number, default), MAX_ID)


class ConsolePage(BaseView):
    """A page of a feature's own, for everybody who is signed in to the console: one method, under SQLAdmin's `@expose`.

    Its templates are named from the features' folder on: `two_factor/templates/page.html`.
    """

    def is_accessible(self, request: Request) -> bool:
        return True

    async def notice(self, request: Request) -> str | None:
        """What the person should be told on the console's home page, with a link to this one."""
        return None

    async def render(self, request: Request, template: str, status: int = 200, **context: Any) -> Response:
        return await self.templates.TemplateResponse(request, template, {"page": self, **context}, status)


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
