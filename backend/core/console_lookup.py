"""Finding a record by the beginning of its name, for form fields and filters that refer to one.

    lookups: ClassVar = {"user_id": "user"}   # field → the view of what it refers to
    def extra_fields(self): return {"user_id": LookupField("Person", description="Who shall hold it.")}

The field is a box to type in: it suggests while one types, and takes a key, `7`, or an exact name, without JavaScript.
"""

import re
import sys
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, String, and_, cast, func, literal_column, or_
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession
from wtforms import Field
from wtforms.widgets import TextInput

from backend.core.db import MAX_ID

MOST = 20  # suggestions
SMALL = 10_000  # rows; a table that is larger is searched by its indexes only
LONGEST = 300  # characters
UNKNOWN = "There is no record, or not only one, of this name or number. Type a few letters and choose"
NUMBERED = re.compile(r"^(?P<text>.*?)\s*\((?P<id>\d{1,10})\)$", re.DOTALL)


class LookupField(Field):  # type: ignore[misc]  # wtforms has no types
    """A key of another table. Who reads the form has put the key in the place of a name: see `resolved`."""

    widget = TextInput()

    def __init__(self, label: str, **options: Any) -> None:
        attributes = {"class": "form-control", "autocomplete": "off", "maxlength": LONGEST, "data-lookup": ""}
        super().__init__(label, **{**options, "render_kw": attributes | (options.get("render_kw") or {})})
        self.typed: str | None = None

    def process_formdata(self, valuelist: list[str]) -> None:
        self.typed = valuelist[0].strip() if valuelist else ""
        self.data = None
        if self.typed and _key(self.typed) is None:
            raise ValueError(UNKNOWN)
        self.data = _key(self.typed)

    def _value(self) -> str:
        return self.typed if self.typed is not None else str(self.data or "")


def _key(text: str) -> int | None:
    number = text.removeprefix("#")
    return int(number) if number.isascii() and number.isdecimal() and 0 < int(number[:11]) <= MAX_ID else None


def written(record: Any) -> str:
    """A record as a suggestion: `ada@example.com (7)`."""
    return f"{record} ({record.id})"


def _indexed(view: Any) -> list[Any]:
    """What the view says its lists are searched by at any size, or the searched columns that lead an index."""
    if declared := getattr(view, "prefix_searchable", ()):
        return list(declared)
    table = view.model.__table__
    leading = {next(iter(index.columns)).name for index in table.indexes if len(index.columns)}
    leading |= {one.name for one in table.columns if one.unique}
    return [getattr(view.model, name) for name in view._search_fields if name in leading]  # noqa: SLF001  SQLAdmin's


def _searched(view: Any) -> list[Any]:
    return [getattr(view.model, name) for name in view._search_fields]  # noqa: SLF001


def begins(column: Any, text: str) -> ColumnElement[bool]:
    """In whatever case. Not by ILIKE, which no index helps: in lower case, as an index on that expression has it."""
    pattern = re.sub(r"[/%_]", r"/\g<0>", text) + "%"
    found: ColumnElement[bool] = func.lower(column).like(func.lower(pattern), escape="/")
    return found


def _begins(session: AsyncSession, column: Any, text: str) -> ColumnElement[bool]:
    """By an index: PostgreSQL's on the lower case; the others' know none, so for them as people write names."""
    if session.get_bind().dialect.name == "postgresql":
        return begins(column, text)
    spellings = dict.fromkeys((text, text.lower(), text.capitalize(), text.title(), text.upper()))
    return or_(*(and_(column >= one, column < one + chr(sys.maxunicode)) for one in spellings))


async def _is_small(session: AsyncSession, view: Any) -> bool:
    some = select(literal_column("1")).select_from(view.model).limit(SMALL + 1).subquery()
    return (await session.exec(select(func.count()).select_from(some))).one() <= SMALL


async def _found(session: AsyncSession, base: Any, condition: ColumnElement[bool], most: int) -> Sequence[Any]:
    return list((await session.exec(base.where(condition).limit(most))).scalars())


async def suggestions(session: AsyncSession, view: Any, base: Select[Any], text: str) -> list[Any]:
    """Up to `MOST` records of `base`: with this key, whose name begins so, and in small tables those with it inside.

    By indexes, so it is as quick on a million rows.
    """
    found: dict[int, Any] = {}
    if (key := _key(text)) is not None:
        found |= {one.id: one for one in await _found(session, base, view.pk_columns[0] == key, 1)}
    starts = [_begins(session, column, text) for column in _indexed(view)]
    if starts:
        found |= {one.id: one for one in await _found(session, base, or_(*starts), MOST)}
    if len(found) < MOST and await _is_small(session, view):
        inside = [cast(column, String).icontains(text, autoescape=True) for column in _searched(view)]
        if inside:
            seen = view.pk_columns[0].not_in(list(found))
            more = await _found(session, base, and_(or_(*inside), seen), MOST - len(found))
            found |= {one.id: one for one in more}
    return list(found.values())[:MOST]


async def resolved(session: AsyncSession, view: Any, base: Select[Any], text: str) -> str:
    """What was typed, as a key: of a key, an exact name, or a suggestion. Something else when there is none."""
    text = text.strip()[:LONGEST]
    if not text or "\x00" in text or (key := _key(text)) is not None:
        return text
    whole = await _is_small(session, view)
    exact = [
        column == spelling
        for column in (_searched(view) if whole else _indexed(view))
        for spelling in dict.fromkeys((text, text.lower()))
    ]
    named = await _found(session, base, or_(*exact), 2) if exact else []
    if len(named) == 1:
        return str(named[0].id)
    if (suggested := NUMBERED.match(text)) and (key := _key(suggested["id"])) is not None:
        for record in await _found(session, base, view.pk_columns[0] == key, 1):
            if str(record) == suggested["text"]:
                return str(key)
    return text
