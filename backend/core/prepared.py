"""A statement that is the same each time but for its parameters: made into SQL once, not looked at again each time.

`rows` and `store` send it straight to asyncpg, in the place of SQLAlchemy's execution, which takes longer than it does.
"""

import time
from collections import namedtuple
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, cast

import orjson
from asyncpg import InterfaceError, InternalClientError, PostgresError
from sqlalchemy import Engine
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg

from backend.core import statements
from backend.core.pool import FairPool

# The last is asyncpg's for a server that had hung up just before it was asked.
FAILURES = (PostgresError, InterfaceError, OSError, InternalClientError)
DIALECT = PGDialect_asyncpg(json_serializer=lambda value: orjson.dumps(value).decode())  # type: ignore[no-untyped-call]

Convert = Callable[[Any], Any]


class Prepared:
    """A SELECT of columns, or an INSERT that returns some, with `bindparam("name")` for what each request brings.

    TypeError for one whose text depends on the value of a parameter, as that of `in_()` does.
    """

    def __init__(self, statement: Any) -> None:
        self.statement: Any = statement
        made: Any = statement.compile(dialect=DIALECT)
        if made.post_compile_params:
            raise TypeError("the text of this statement depends on its parameters: give the SELECT itself to rows()")
        self.text: str = made.string
        self._fixed: dict[str, Any] = {name: value for name, value in made.params.items() if value is not None}
        self._order: list[tuple[str, Convert | None]] = [
            (name, made.binds[name].type.dialect_impl(DIALECT).bind_processor(DIALECT)) for name in made.positiontup
        ]
        columns = list(statement.exported_columns)
        self._row = namedtuple("Row", [column.key for column in columns])  # type: ignore[misc]
        converts = [column.type.dialect_impl(DIALECT).result_processor(DIALECT, None) for column in columns]
        self._converts = [(index, convert) for index, convert in enumerate(converts) if convert]

    def arguments(self, parameters: Mapping[str, Any]) -> list[Any]:
        """In the order of the text. KeyError for one that is missing."""
        values = {**self._fixed, **parameters}
        return [convert(values[name]) if convert else values[name] for name, convert in self._order]

    def rows(self, records: Sequence[Sequence[Any]]) -> list[Any]:
        """Named tuples. Columns are converted as a whole, in which no row costs a step of the interpreter."""
        columns: list[Iterable[Any]] = list(zip(*records, strict=True))
        for index, convert in self._converts if columns else ():
            columns[index] = map(convert, columns[index])
        return list(map(tuple.__new__, repeat(self._row), zip(*columns, strict=True)))


async def straight(engine: Engine, prepared: Prepared, parameters: Mapping[str, Any]) -> Sequence[Any] | None:
    """Ask on a connection of the engine's pool. None when it has to be asked in SQLAlchemy's way.

    That is so, too, when asyncpg has failed, but for its timeout: SQLAlchemy says it in its words.
    """
    arguments = prepared.arguments(parameters)
    pool = cast("FairPool", engine.pool)
    entry = await pool.lend()
    if entry is None:
        return None
    began = time.perf_counter()
    try:
        found = await entry.driver_connection.fetch(prepared.text, *arguments)  # type: ignore[union-attr]
    except BaseException as exc:  # cancelled, too
        pool.drop(entry, exc)
        if isinstance(exc, FAILURES) and not isinstance(exc, TimeoutError):
            return None
        statements.note_failure(prepared.text, began, exc)
        raise
    statements.note(prepared.text, began)
    await pool.take_back(entry)
    return prepared.rows(found)
