"""`store`: a new record in a fraction of the time of SQLAlchemy's unit of work, in the transaction of the request.

A session that writes opens late. As long as all that is asked of it is to store new records, PostgreSQL gets a BEGIN,
one INSERT for each, and a COMMIT, straight through asyncpg; for `store_last`, the INSERT alone. When something asks
more of it, the session takes the connection over, with the transaction that is under way on it: SQLAlchemy's adapter,
by which this begins and ends it, knows of it. That is done by what the adapter keeps to itself;
`test_writing_session.py` fails when it has changed.
"""

# ruff: noqa: SLF001

import time
from collections import namedtuple
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NoReturn, cast

from pydantic_core import PydanticUndefined
from sqlalchemy import CTE, Engine, String, bindparam, insert, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.pool import ConnectionPoolEntry
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core import statements
from backend.core.commits import OVER, LateSession, carried_through, do_what_waited
from backend.core.events import Event, emit
from backend.core.pool import FairPool
from backend.core.prepared import Prepared

REFUSED = ("22", "23")  # classes of SQLSTATE: values, and constraints; nothing is stored then


@dataclass(frozen=True, kw_only=True)
class Along:
    """A record that is stored with another one, in the same statement. Its column `refers` gets that one's key."""

    model: type[SQLModel]
    values: Mapping[str, Any]
    refers: str  # a text


@dataclass(frozen=True, kw_only=True)
class RecordStoring(Event):
    """A record is going to be stored without a flush: for who listens to those. `values`: of all columns but its key.

    Who wants to store a record with it appends to `along`. Who asks anything of the session makes it a flush.
    """

    model: type[SQLModel]
    values: Mapping[str, Any]
    along: list[Along] = field(default_factory=list)


class New:
    """How a table's records are stored."""

    def __init__(self, model: type[SQLModel]) -> None:
        table: Any = model.__table__  # type: ignore[attr-defined]
        [self.key] = table.primary_key.columns.keys()
        columns = [column for column in table.columns if column.key != self.key]
        self._fields = [(column.key, model.model_fields[column.key]) for column in columns]
        self.row = namedtuple("Row", [self.key, *(name for name, _ in self._fields)])  # type: ignore[misc]
        values: dict[str, Any] = {name: bindparam(name) for name, _ in self._fields}
        self._insert = insert(table).values(values).returning(table.c[self.key])
        self._model = model

    def completed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """With the defaults of the columns that are not given. TypeError for one that has none."""
        found = dict(values)
        for name, info in self._fields:
            if name not in found:
                factory: Any = info.default_factory
                found[name] = value = factory() if factory else info.default
                if value is PydanticUndefined:
                    raise TypeError(f"{name} is missing")
        return found

    @cache  # noqa: B019  there is one of these for each table
    def insert(self, *along: tuple[type[SQLModel], str]) -> Prepared:
        """The INSERT that returns the key, with those of the records that go along, whose parameters are numbered."""
        if not along:
            return Prepared(self._insert)
        stored = self._insert.cte("stored")
        statement = select(stored.c[self.key])
        for number, (model, refers) in enumerate(along):
            statement = statement.add_cte(new(model)._along(number, refers, stored))
        return Prepared(statement)

    def _along(self, number: int, refers: str, stored: CTE) -> CTE:
        table: Any = self._model.__table__  # type: ignore[attr-defined]
        [key] = stored.c
        values = [
            sql_cast(key, String) if name == refers else bindparam(f"{name}_{number}", type_=table.c[name].type)
            for name, _ in self._fields
        ]
        row = insert(table).from_select([name for name, _ in self._fields], select(*values), include_defaults=False)
        return row.cte(f"along_{number}")


new = cache(New)


class WritingSession(LateSession):
    """For routes that write: `store` goes past it while nothing asks more of it. Its commit ends both alike.

    After `store_last` there is nothing left to commit, and whatever is asked of it is a RuntimeError.
    """

    def __init__(self, engine: Engine | None, options: Mapping[str, Any]) -> None:
        super().__init__(engine, lambda: dict(options))
        self._info = options["info"]
        self._lent: ConnectionPoolEntry | None = None  # the connection, in a transaction unless `_last`
        self._last = self._over = False

    @property
    def info(self) -> dict[Any, Any]:
        return self.sync_session.info if self.opened else self._info

    def in_transaction(self) -> bool:
        return super().in_transaction() if self.opened else self._lent is not None

    def open(self) -> None:
        if self._over:
            raise RuntimeError(OVER)
        pool = self._pool
        super().open()
        self.sync_session.info.update(self._info)
        if self._lent is not None:
            with pool.hand_to_next(self._lent):
                self._lent = None
                self.sync_session.connection()  # this very one; SQLAlchemy's adapter knows of the transaction

    @property
    def _pool(self) -> FairPool:
        return cast("FairPool", cast("Engine", self.engine).pool)

    async def begin_straight(self, *, last: bool) -> bool:
        """Whether `insert` may be used: there is a connection, and a transaction on it, unless this is the last."""
        if self._lent is not None:
            return True
        if self._over:
            raise RuntimeError(OVER)
        if self.opened or self.engine is None:
            return False
        lent = await self._pool.lend()
        if lent is None:
            return False
        if last:
            self._lent, self._last = lent, True
            return True
        try:
            await cast("Any", lent.dbapi_connection)._start_transaction()
        except BaseException as exc:
            self._pool.drop(lent, exc)
            if isinstance(exc, Exception) and not isinstance(exc, TimeoutError):
                return False  # SQLAlchemy says it in its words, or finds a connection that works
            raise
        self._lent = lent
        return True

    async def insert(self, prepared: Prepared, values: Mapping[str, Any]) -> Any:
        """The row that it returns. Errors are those of SQLAlchemy."""
        arguments = prepared.arguments(values)
        lent = cast("ConnectionPoolEntry", self._lent)
        driver: Any = lent.driver_connection
        began = time.perf_counter()
        try:
            [row] = await driver.fetch(prepared.text, *arguments)
        except BaseException as exc:  # noqa: BLE001  it is raised there
            statements.note_failure(prepared.text, began, exc)
            if self._last and (getattr(exc, "sqlstate", None) or "")[:2] not in REFUSED:
                do_what_waited(self, unsure=True)
            await self.run_sync(_fail, exc, prepared.text)
        statements.note(prepared.text, began)
        if self._last:
            self._lent, self._over = None, True
            await self._pool.take_back(lent)
            do_what_waited(self)
        else:
            self._info.setdefault("wrote", (None,))
        return row

    async def commit(self) -> None:
        if self.opened:
            await super().commit()
        elif self._lent is None:
            do_what_waited(self)
        elif self.info.get("after_commit"):
            await carried_through(self._commit(self._lent))
        else:
            await self._commit(self._lent)

    async def close(self) -> None:
        if self.opened or self._lent is not None:
            await super().close()

    async def _commit(self, lent: ConnectionPoolEntry) -> None:
        adapter: Any = lent.dbapi_connection
        try:
            await adapter._call_and_discard(adapter._transaction.commit)
        except BaseException as exc:  # noqa: BLE001  it is raised there
            do_what_waited(self, unsure=True)
            await self.run_sync(_fail, exc, "COMMIT")
        self._lent = None
        self._info.pop("wrote", None)
        await self._pool.take_back(lent)
        do_what_waited(self)


def _fail(session: OrmSession, exc: BaseException, text: str) -> NoReturn:
    """Raise what SQLAlchemy would raise for an error of the driver. A connection that is lost is not used again."""
    connection = session.connection()
    adapter: Any = connection.connection.dbapi_connection
    try:
        adapter._handle_exception(exc)
    except BaseException as translated:  # noqa: BLE001
        connection._handle_dbapi_exception(translated, text, None, None, None)
    raise exc


async def store(session: AsyncSession, model: type[SQLModel], **values: Any) -> Any:
    """Store one new record; returns it, or a row of its columns, which cannot be changed.

    For routes that add one record and answer at once. Mapper events of SQLAlchemy (`before_insert`) are not called.
    """
    return await _store(session, model, values, last=False)


async def store_last(session: AsyncSession, model: type[SQLModel], **values: Any) -> Any:
    """The same for a record that is all that a request writes, and the last that it asks: it is committed at once.

    What is to be done after the commit waits already. RuntimeError for whatever is asked of the session afterwards.
    """
    return await _store(session, model, values, last=True)


async def _store(session: AsyncSession, model: type[SQLModel], values: Mapping[str, Any], *, last: bool) -> Any:
    if isinstance(session, WritingSession) and await session.begin_straight(last=last):
        how = new(model)
        whole = how.completed(values)
        await emit(session, storing := RecordStoring(model=model, values=whole))
        if not session.opened:
            prepared = how.insert(*((one.model, one.refers) for one in storing.along))
            [whole[how.key]] = await session.insert(prepared, _numbered(whole, storing.along))
            return how.row(**whole)
    record = model(**values)
    session.add(record)
    await session.flush()
    if last:
        session.info["over"] = True
    return record


def _numbered(values: Mapping[str, Any], along: Sequence[Along]) -> Mapping[str, Any]:
    found = dict(values)
    for number, one in enumerate(along):
        whole = new(one.model).completed({**one.values, one.refers: ""})
        found |= {f"{name}_{number}": value for name, value in whole.items()}
    return found
