"""The base of the console's views: SQLAdmin's `ModelView` with its sharp edges taken off. Views live in the features.

A view reads through SQLAdmin and writes through its feature's service: the rules of the API hold in the console too.
What depends on SQLAdmin's inside is here and in the `admin` package.
"""

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ValidationError
from sqladmin import ModelView
from sqlalchemy import Select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm.exc import StaleDataError
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.exceptions import HTTPException
from starlette.requests import Request

from backend.core.auth import Principal
from backend.core.db import MAX_ID, Database

T = TypeVar("T")

CLASH = "This clashes with what is stored: another record has the same value, or needs this one"
STALE = "Somebody else changed this record at the same time; load it again"
REFUSED = "The database did not accept these values"


class ConsoleView(ModelView):
    """A table in the console. Say what is shown (never "all columns"), which permissions open it, and how to write."""

    read: ClassVar[str]  # permission to list and view
    write: ClassVar[str]  # permission to create, edit and delete
    form_schema: ClassVar[type[BaseModel]]  # the API's own rules, applied to every form

    can_export = False
    page_size = 25
    page_size_options: ClassVar[list[int]] = [25, 50, 100]

    async def create(self, session: AsyncSession, form: Any, caller: Principal) -> Any:
        """Store a new record from a checked form and return it."""
        raise HTTPException(403)

    async def change(self, session: AsyncSession, record: Any, form: Any, caller: Principal) -> Any:
        """Change a record as the checked form says and return it."""
        raise HTTPException(403)

    async def remove(self, session: AsyncSession, record: Any, caller: Principal) -> None:
        """Delete a record."""
        raise HTTPException(403)

    async def insert_model(self, request: Request, data: dict[str, Any]) -> Any:
        form = self._checked(data)
        return await _write(request, lambda session: self.create(session, form, request.state.principal))

    async def update_model(self, request: Request, pk: str, data: dict[str, Any]) -> Any:
        form = self._checked(data)

        async def change(session: AsyncSession) -> Any:
            return await self.change(session, await self._load(session, pk), form, request.state.principal)

        return await _write(request, change)

    async def delete_model(self, request: Request, pk: Any) -> None:
        async def remove(session: AsyncSession) -> None:
            await self.remove(session, await self._load(session, pk), request.state.principal)

        await _write(request, remove)

    async def _load(self, session: AsyncSession, pk: str) -> Any:
        record = (await session.exec(self._stmt_by_identifier(pk))).scalars().first()  # type: ignore[call-overload]
        if record is None:
            raise HTTPException(404, "There is no such record")
        return record

    def _checked(self, data: dict[str, Any]) -> BaseModel:
        """The form, held to the API's schema; ValueError with a sentence per field, which SQLAdmin shows."""
        try:
            return self.form_schema.model_validate({key: value for key, value in data.items() if value is not None})
        except ValidationError as exc:
            problems = (f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in exc.errors())
            raise ValueError("; ".join(problems)) from None

    def _stmt_by_identifier(self, identifier: str) -> Select[Any]:
        """A bad id in the address is 404, as in the API (SQLAdmin: 500)."""
        if not (identifier.isascii() and identifier.isdecimal() and 0 < int(identifier[:20]) <= MAX_ID):
            raise HTTPException(404, "There is no such record")
        statement: Select[Any] = super()._stmt_by_identifier(identifier)
        return statement

    def validate_page_number(self, number: str | None, default: int) -> int:
        return min(super().validate_page_number(number, default), MAX_ID)


async def _write(request: Request, work: Callable[[AsyncSession], Awaitable[T]]) -> T:
    """Run `work` in a session of its own and commit; a database's refusal becomes a sentence (SQLAdmin shows SQL)."""
    database: Database = request.app.state.database
    try:
        async with database.session() as session:
            result = await work(session)
            await session.commit()
            return result
    except IntegrityError:
        raise ValueError(CLASH) from None
    except StaleDataError:
        raise ValueError(STALE) from None
    except DBAPIError:
        raise ValueError(REFUSED) from None
