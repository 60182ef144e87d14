"""Two ways to page: by number, with a total, for people; by cursor (keyset), as fast on every page, for programs."""

import base64
import binascii
from collections.abc import Sequence
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

from fastapi import Query, Response
from pydantic import BaseModel, Field
from sqlalchemy import Executable, Select, func, literal_column, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.db import MAX_ID
from backend.core.errors import BadRequest

T = TypeVar("T")

MAX_PAGE_SIZE = 100
EXACT_UP_TO = 10_000  # records; counting all of a large table takes longer than any page of it

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="Most records to return")]
Cursor = Annotated[
    str | None, Query(max_length=64, description="`next` of the page before; leave out for the first page")
]


class PageQuery(BaseModel):
    """`?page=1&page_size=20`. The number is bounded so that the offset stays within 64 bits."""

    page: int = Field(1, ge=1, le=MAX_ID, description="Page number, from 1")
    page_size: int = Field(20, ge=1, le=MAX_PAGE_SIZE, description="Records per page")

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.page_size


PageNumber = Annotated[PageQuery, Query()]


class Total(NamedTuple):
    """How many records there are: exactly, or as the database's planner estimates them."""

    number: int
    exact: bool

    def tell(self, response: Response) -> None:
        """`X-Total-Count`, and for an estimate `X-Total-Estimated: true`."""
        response.headers["X-Total-Count"] = str(self.number)
        if not self.exact:
            response.headers["X-Total-Estimated"] = "true"


class Explain(Executable, ClauseElement):
    """What PostgreSQL's planner makes of a statement, as JSON."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(Explain)
def _explain(element: Explain, compiler: SQLCompiler, **options: Any) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.statement, **options)}"


async def counted(session: AsyncSession, statement: Any) -> Total:
    """How many rows a SELECT finds; beyond `EXACT_UP_TO` an estimate, where there is none just that bound."""
    bare = statement.with_only_columns(literal_column("1"), maintain_column_froms=True).order_by(None)
    bounded: Any = select(func.count()).select_from(bare.limit(EXACT_UP_TO + 1).subquery())
    count = (await session.exec(bounded)).scalar_one()
    if count <= EXACT_UP_TO:
        return Total(count, exact=True)
    if session.get_bind().dialect.name == "postgresql":
        explain: Any = Explain(bare)
        [plan] = (await session.exec(explain)).scalar_one()
        count = max(count, plan["Plan"]["Plan Rows"])
    return Total(count, exact=False)


async def paged(session: AsyncSession, statement: Any, query: "PageQuery") -> tuple[Sequence[Any], Total]:
    """One page of what a SELECT finds, and how many there are. A page that is not full is the last: none is counted."""
    rows = (await session.exec(statement.offset(query.offset).limit(query.page_size))).all()
    if len(rows) < query.page_size and (rows or query.page == 1):
        return rows, Total(query.offset + len(rows), exact=True)
    return rows, await counted(session, statement)


class Page(BaseModel, Generic[T]):
    """One numbered page and how many records there are in all, estimated when there are very many."""

    items: list[T]
    page: int
    page_size: int
    total: int
    pages: int

    @classmethod
    def of(cls, items: list[T], query: PageQuery, total: Total) -> "Page[T]":
        pages = -(-total.number // query.page_size)
        return cls(items=items, page=query.page, page_size=query.page_size, total=total.number, pages=pages)


class Slice(BaseModel, Generic[T]):
    """Records up to the limit, and the cursor of the next ones; `next` is null on the last page."""

    items: list[T]
    next: str | None


def encode_cursor(last_id: int) -> str:
    return base64.urlsafe_b64encode(str(last_id).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> int | None:
    """The id to go on from, None for the first page. BadRequest for anything that `encode_cursor` did not make."""
    if cursor is None:
        return None
    try:
        value = int(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        raise BadRequest("The cursor is not one of ours; start again without it") from None
    if not 0 < value <= MAX_ID or encode_cursor(value) != cursor:
        raise BadRequest("The cursor is not one of ours; start again without it")
    return value
