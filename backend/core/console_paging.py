"""Pages of the console's lists. Small lists have numbers; large ones go first, previous, next, last by keyset.

Nothing counts more than `EXACT_UP_TO` rows, and no OFFSET skips more: the last page of a million rows costs what the
first one does.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    DateTime,
    Integer,
    Numeric,
    Select,
    and_,
    func,
    literal_column,
    or_,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.datastructures import URL
from starlette.exceptions import HTTPException

from backend.core.db import MAX_ID, Money
from backend.core.paging import EXACT_UP_TO

CURSOR_MAX = 2000  # characters
BAD_CURSOR = "This address of a page is not one of ours. Go back to the first page"
AFTER, BEFORE, LAST = "after", "before", "last"

# What the planner, or the server's own statistics, take a table to hold.
ESTIMATES = {
    "postgresql": "SELECT CAST(reltuples AS BIGINT) FROM pg_class WHERE oid = CAST(:name AS regclass)",
    "mysql": "SELECT table_rows FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = :name",
}
ESTIMATES["mariadb"] = ESTIMATES["mysql"]


@dataclass(frozen=True)
class Total:
    """How many rows match: exactly, about so many, or more than so many."""

    number: int
    exact: bool = True
    estimated: bool = False

    def __str__(self) -> str:
        before = "" if self.exact else "about " if self.estimated else "more than "
        return f"{before}{self.number:,}"


@dataclass(frozen=True)
class Order:
    """By a column, then by the key, in one direction. Where NULL belongs is the database's affair."""

    column: Any
    key: Any
    descending: bool
    nulls_are_largest: bool = False

    @property
    def by_key(self) -> bool:
        return bool(self.column.key == self.key.key)

    def applied(self, statement: Select[Any], *, reverse: bool = False) -> Select[Any]:
        columns = [self.key] if self.by_key else [self.column, self.key]
        down = self.descending != reverse
        return statement.order_by(None).order_by(*(one.desc() if down else one.asc() for one in columns))

    def beyond(self, value: Any, key: int, *, reverse: bool = False) -> ColumnElement[bool]:
        """What comes after this row; with `reverse`, before it."""
        down = self.descending != reverse
        further: ColumnElement[bool] = self.key < key if down else self.key > key
        if self.by_key:
            return further
        nulls_come = self.nulls_are_largest != down  # after all values, in this direction
        if value is None:
            same = and_(self.column.is_(None), further)
            return same if nulls_come else or_(same, self.column.is_not(None))
        at_least, more = (
            (self.column <= value, self.column < value) if down else (self.column >= value, self.column > value)
        )
        found = and_(at_least, or_(more, further))  # in this shape an index gives the start
        nullable = getattr(self.column, "nullable", True)
        return or_(found, self.column.is_(None)) if nullable and nulls_come else found


def encoded(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def _amount(value: Any) -> bool:
    return isinstance(value, str) and len(value) < 20 and abs(Decimal(value)) < 10**15


def _moment(value: Any) -> bool:
    moment = datetime.fromisoformat(value)
    return moment.tzinfo is not None and 1000 < moment.year < 9000


def _text(value: Any) -> bool:
    return isinstance(value, str) and "\x00" not in value and bool(value.encode() or True)  # no lone surrogates


# For each kind of column, whether a value of a cursor is one, and what becomes of it. The first that fits.
KINDS: tuple[tuple[Any, Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    (Money | Numeric, _amount, Decimal),
    (DateTime, _moment, datetime.fromisoformat),
    (Boolean, lambda value: isinstance(value, bool), bool),
    (Integer, lambda value: type(value) is int and abs(value) <= MAX_ID, int),
    (object, _text, str),
)


def _decoded(value: Any, column: Any) -> Any:
    """A value of the column's type. ValueError, TypeError or ArithmeticError for another one."""
    kind = column.type if isinstance(column.type, Money) else getattr(column.type, "impl", column.type)
    fits, made = next((fits, made) for types, fits, made in KINDS if isinstance(kind, types))
    if value is None:
        return None
    if not fits(value):
        raise ValueError
    return made(value)


@dataclass(frozen=True)
class Place:
    """Where a page begins: the start (`after` nothing), after or before a row, or the end."""

    towards: str
    value: Any = None
    key: int = 0

    def told(self) -> str:
        if self.towards == LAST:
            return LAST
        text = json.dumps([self.towards, encoded(self.value), self.key], ensure_ascii=False, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def read(cls, cursor: str, order: Order) -> "Place":
        """400 for what `told` did not make, or made for another order."""
        if cursor == LAST:
            return cls(LAST)
        try:
            if len(cursor) > CURSOR_MAX:
                raise ValueError
            padded = cursor + "=" * (-len(cursor) % 4)
            towards, value, key = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
            if towards not in (AFTER, BEFORE) or type(key) is not int or not 0 < key <= MAX_ID:
                raise ValueError
            return cls(towards, _decoded(value, order.column), key)
        except (ValueError, TypeError, ArithmeticError, RecursionError, binascii.Error):
            raise HTTPException(400, BAD_CURSOR) from None


@dataclass
class PageLink:
    number: int
    url: str


@dataclass
class Listing:
    """One page of a list: what SQLAdmin's handler and our template ask of it."""

    rows: Sequence[Any]
    page: int
    page_size: int
    total: Total
    order: Order
    by_number: bool
    has_previous: bool
    has_next: bool
    links: dict[str, str] = field(default_factory=dict)  # First, Previous, Next, Last → address
    numbers: list[PageLink] = field(default_factory=list)

    @property
    def count(self) -> int:
        return self.total.number

    @property
    def shown(self) -> str:
        """`26 to 50 of 1,234`, with a dash, or `25 of about 1,000,000`."""
        if not self.by_number:
            return f"{len(self.rows):,} of {self.total}"
        first = (self.page - 1) * self.page_size
        return f"{first + 1:,}\N{EN DASH}{first + len(self.rows):,} of {self.total}"

    def add_pagination_urls(self, url: URL) -> None:
        """SQLAdmin's handler calls this with the address of the page."""
        start = url.remove_query_params(["page", "at", "error"])
        if self.total.exact and self.by_number:
            last = max(1, -(-self.count // self.page_size))
            near = {1, last, *range(self.page - 2, self.page + 3)}
            wanted = sorted(number for number in near if 0 < number <= last)
            self.numbers = (
                [PageLink(one, str(start.include_query_params(page=one))) for one in wanted] if last > 1 else []
            )
            return

        def place(towards: str, row: Any) -> str:
            where = Place(towards, getattr(row, self.order.column.key), getattr(row, self.order.key.key))
            return str(start.include_query_params(at=where.told()))

        if self.has_previous:
            self.links |= {"First": str(start), "Previous": place(BEFORE, self.rows[0])}
        if self.has_next:
            self.links |= {"Next": place(AFTER, self.rows[-1]), "Last": str(start.include_query_params(at=LAST))}


async def total_of(session: AsyncSession, statement: Select[Any], *, table: str | None) -> Total:
    """In one statement. `table`: its name, when all of it is asked for and its size may be estimated."""
    bare: Any = statement.with_only_columns(literal_column("1"), maintain_column_froms=True).order_by(None)
    bounded: Any = select(func.count()).select_from(bare.limit(EXACT_UP_TO + 1).subquery()).scalar_subquery()
    estimate = ESTIMATES.get(session.get_bind().dialect.name) if table else None
    if estimate is None:
        count, guess = (await session.execute(select(bounded))).scalar_one(), None
    else:
        guessed = text(f"({estimate})").bindparams(name=table)
        count, guess = (await session.execute(select(bounded, guessed))).one()
    if count <= EXACT_UP_TO:
        return Total(count)
    if guess is not None and int(guess) > EXACT_UP_TO:
        return Total(int(guess), exact=False, estimated=True)
    return Total(EXACT_UP_TO, exact=False)


async def listing(
    session: AsyncSession,
    statement: Select[Any],
    order: Order,
    *,
    page: int,
    page_size: int,
    cursor: str,
    table: str | None,
) -> Listing:
    """One page of what a statement finds, in two statements."""
    order = Order(order.column, order.key, order.descending, session.get_bind().dialect.name == "postgresql")
    place = Place.read(cursor, order) if cursor else None
    total = await total_of(session, statement, table=table)

    async def found(reverse: bool, narrowed: Select[Any]) -> tuple[list[Any], bool]:
        """Rows in the order of the list, and whether there are more on the far side."""
        rows = list((await session.execute(order.applied(narrowed, reverse=reverse).limit(page_size + 1))).scalars())
        more, rows = len(rows) > page_size, rows[:page_size]
        return (rows[::-1] if reverse else rows), more

    made = partial(Listing, page_size=page_size, total=total, order=order)
    if place is not None:
        reverse = place.towards != AFTER
        narrowed = statement
        if place.towards != LAST:
            narrowed = statement.where(order.beyond(place.value, place.key, reverse=reverse))
        rows, more = await found(reverse, narrowed)
        before, after = (more, place.towards == BEFORE) if reverse else (True, more)
        if rows or place.towards == LAST:
            return made(rows=rows, page=page, by_number=False, has_previous=before, has_next=after)
        page = 1  # what was there has gone
    page = min(max(page, 1), max(1, -(-min(total.number, EXACT_UP_TO) // page_size)))
    rows, more = await found(False, statement.offset((page - 1) * page_size))
    return made(rows=rows, page=page, by_number=True, has_previous=page > 1, has_next=more)
