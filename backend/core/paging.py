"""Two ways to page: by number, with a total, for people; by cursor (keyset), as fast on every page, for programs."""

import base64
import binascii
from collections.abc import Sequence
from itertools import repeat
from typing import Annotated, Any, Generic, NamedTuple, Self, TypeVar
from urllib.parse import urlencode

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy import Executable, Select, func, literal_column, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.db import MAX_ID
from backend.core.errors import BadRequest
from backend.core.read_session import rows

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
    [(count,)] = await rows(session, bounded)
    if count <= EXACT_UP_TO:
        return Total(count, exact=True)
    if session.get_bind().dialect.name == "postgresql":
        explain: Any = Explain(bare)
        [([plan],)] = await rows(session, explain)
        count = max(count, plan["Plan"]["Plan Rows"])
    return Total(count, exact=False)


async def paged(session: AsyncSession, statement: Any, query: "PageQuery") -> tuple[Sequence[Any], Total]:
    """One page of what a SELECT finds, and how many there are. A page that is not full is the last: none is counted."""
    found = (await session.exec(statement.offset(query.offset).limit(query.page_size))).all()
    if len(found) < query.page_size and (found or query.page == 1):
        return found, Total(query.offset + len(found), exact=True)
    return found, await counted(session, statement)


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


def plain(rows: Sequence[Any]) -> Sequence[Any]:
    """Rows as dictionaries, which pydantic reads in a third of the time; whole records as they are."""
    names = getattr(rows[0], "_fields", None) if rows else None
    if names is None:
        return rows
    return list(map(dict, map(zip, repeat(names), rows)))


class Slice(BaseModel, Generic[T]):
    """Records up to the limit, and the cursor of the next ones; `next` is null on the last page."""

    items: list[T]
    next: str | None

    @classmethod
    def of(cls, rows: Sequence[Any], limit: int) -> Self:
        """From one row more than the limit, if there are so many; rows, or whole records, have an `id`."""
        following = encode_cursor(rows[limit - 1].id) if len(rows) > limit else None
        return cls.model_validate({"items": plain(rows[:limit]), "next": following})

    def tell(self, request: Request, response: Response) -> None:
        """The next page as a `Link` header (RFC 8288)."""
        if self.next:
            query = [one for one in request.query_params.multi_items() if one[0] != "cursor"]
            query.append(("cursor", self.next))
            response.headers["Link"] = f'<{request.scope["path"]}?{urlencode(query)}>; rel="next"'


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
