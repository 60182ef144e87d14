"""Filters of the console's lists: a view declares them, the list's address carries what is asked, SQL answers it.

    filters: ClassVar[tuple[Filter, ...]] = (Choice(User.role, ROLES), DateRange(User.created_at))

Each reads its own names in the query, `f_role` or `f_created_at_from`. What cannot be meant is refused with a sentence.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar

from sqlalchemy import Boolean, ColumnElement, and_
from starlette.exceptions import HTTPException

from backend.core.db import MAX_ID, Money

TEXT_MAX = 100  # characters
YEARS = range(1970, 9000)
DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
WHOLE = re.compile(r"-?\d{1,10}", re.ASCII)
AMOUNT = re.compile(r"-?\d{1,12}(\.\d{1,2})?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Control:
    """One input of a filter's. With `options` (value, label) it is a select."""

    name: str
    label: str
    value: str
    kind: str = "text"  # the input's type
    mode: str = ""  # its inputmode
    step: str = ""
    options: Sequence[tuple[str, str]] = ()


class Filter(ABC):
    """What all filters have: a column, and what the person calls it (None: as the view does)."""

    parts: ClassVar[Mapping[str, str]] = {"": ""}  # suffix in the query → what the input adds to the label

    def __init__(self, column: Any, label: str | None = None) -> None:
        self.column = column
        self.label = label or str(column.key).removesuffix("_id").replace("_", " ").capitalize()
        self.labelled = label is not None

    def called(self, labels: Mapping[str, str]) -> str:
        return self.label if self.labelled else labels.get(self.column.key, self.label)

    @property
    def names(self) -> tuple[str, ...]:
        """Its names in the query."""
        return tuple(f"f_{self.column.key}{suffix}" for suffix in self.parts)

    def asked(self, query: Mapping[str, str]) -> tuple[str, ...]:
        """What the query says, part by part; "" for nothing."""
        return tuple(query.get(name, "").strip() for name in self.names)

    @abstractmethod
    def condition(self, *asked: str) -> ColumnElement[bool]:
        """What rows have to satisfy, when something is asked. HTTPException when it cannot be meant."""

    def told(self, *asked: str) -> str:
        """What is asked, in words, after the label."""
        return asked[0]

    def control(self, name: str, label: str, value: str) -> Control:
        return Control(name=name, label=label, value=value)

    def controls(self, query: Mapping[str, str], labels: Mapping[str, str]) -> list[Control]:
        called, asked = self.called(labels), self.asked(query)
        words = [f"{called} {part}".strip() for part in self.parts.values()]
        return [self.control(*one) for one in zip(self.names, words, asked, strict=True)]

    def refused(self, advice: str) -> HTTPException:
        return HTTPException(400, f"{self.label}: {advice}")


class Choice(Filter):
    """One of some values, (value, label) each."""

    def __init__(self, column: Any, choices: Sequence[tuple[str, str]], label: str | None = None) -> None:
        super().__init__(column, label)
        self.choices = tuple(choices)

    def condition(self, *asked: str) -> ColumnElement[bool]:
        if asked[0] not in dict(self.choices):
            raise self.refused("choose one of the list")
        is_it: ColumnElement[bool] = self.column == asked[0]
        return is_it

    def told(self, *asked: str) -> str:
        return dict(self.choices)[asked[0]]

    def control(self, name: str, label: str, value: str) -> Control:
        return Control(name=name, label=label, value=value, options=self.choices)


class YesNo(Choice):
    """Whether something is so; of a column that is no boolean, whether there is a value."""

    def __init__(self, column: Any, label: str | None = None) -> None:
        super().__init__(column, (("yes", "Yes"), ("no", "No")), label)

    def condition(self, *asked: str) -> ColumnElement[bool]:
        super().condition(*asked)
        wanted = asked[0] == "yes"
        if isinstance(self.column.type, Boolean):
            return self.column == wanted  # type: ignore[no-any-return]
        return self.column.is_not(None) if wanted else self.column.is_(None)  # type: ignore[no-any-return]


class Begins(Filter):
    """A text that begins like this: what an index on the column finds."""

    def condition(self, *asked: str) -> ColumnElement[bool]:
        if len(asked[0]) > TEXT_MAX or "\x00" in asked[0]:  # PostgreSQL has no NUL
            raise self.refused("this cannot be searched for")
        return self.column.startswith(asked[0], autoescape=True)  # type: ignore[no-any-return]

    def told(self, *asked: str) -> str:
        return f"begins with {asked[0]}"

    def control(self, name: str, label: str, value: str) -> Control:
        return Control(name=name, label=f"{label} begins with", value=value)


class Related(Filter):
    """The key of a record of another view, named by its identity."""

    def __init__(self, column: Any, identity: str, label: str | None = None) -> None:
        super().__init__(column, label)
        self.identity = identity

    def condition(self, *asked: str) -> ColumnElement[bool]:
        if not WHOLE.fullmatch(asked[0]) or not 0 < int(asked[0]) <= MAX_ID:
            raise self.refused("write the number of a record, such as 7")
        is_it: ColumnElement[bool] = self.column == int(asked[0])
        return is_it

    def control(self, name: str, label: str, value: str) -> Control:
        return Control(name=name, label=f"{label} (its ID)", value=value, mode="numeric")


class _Range(Filter):
    parts: ClassVar[Mapping[str, str]] = {"_from": "from", "_to": "to"}

    @abstractmethod
    def bounds(self, low: str, high: str) -> tuple[Any, Any]:
        """The lowest value that is meant, and the one from which on no more are; None for an open end."""

    def condition(self, *asked: str) -> ColumnElement[bool]:
        low, high = self.bounds(*asked)
        ends = ([] if low is None else [self.column >= low]) + ([] if high is None else [self.column < high])
        return and_(*ends)

    def told(self, *asked: str) -> str:
        return " ".join(f"{word} {one}" for word, one in zip(self.parts.values(), asked, strict=True) if one)


class DateRange(_Range):
    """Days, in UTC, the last one included."""

    def _day(self, text: str) -> datetime:
        try:
            if DATE.fullmatch(text) and int(text[:4]) in YEARS:
                return datetime.fromisoformat(text).replace(tzinfo=UTC)
        except ValueError:  # the 31st of February
            pass
        raise self.refused("write a date such as 2026-01-31")

    def bounds(self, low: str, high: str) -> tuple[Any, Any]:
        return self._day(low) if low else None, self._day(high) + timedelta(days=1) if high else None

    def control(self, name: str, label: str, value: str) -> Control:
        return Control(name=name, label=label, value=value, kind="date")


class NumberRange(_Range):
    """Whole numbers or amounts, both ends included."""

    @property
    def is_amount(self) -> bool:
        return isinstance(self.column.type, Money)

    def _number(self, text: str) -> int | Decimal:
        if self.is_amount:
            if AMOUNT.fullmatch(text):
                return Decimal(text)
            raise self.refused("write an amount such as 19.99")
        if WHOLE.fullmatch(text) and abs(int(text)) < MAX_ID:
            return int(text)
        raise self.refused(f"write a whole number, no larger than {MAX_ID - 1:,}")

    def bounds(self, low: str, high: str) -> tuple[Any, Any]:
        step = Decimal("0.01") if self.is_amount else 1
        return self._number(low) if low else None, self._number(high) + step if high else None

    def control(self, name: str, label: str, value: str) -> Control:
        step, mode = ("0.01", "decimal") if self.is_amount else ("1", "numeric")
        return Control(name=name, label=label, value=value, kind="number", mode=mode, step=step)


@dataclass(frozen=True, kw_only=True)
class Active:
    """A filter that is asked for: in words, and its names in the query, without which it is not."""

    words: str
    names: Sequence[str]


def conditions(filters: Sequence[Filter], query: Mapping[str, str]) -> list[ColumnElement[bool]]:
    """Of all filters that the query asks for."""
    return [one.condition(*one.asked(query)) for one in filters if any(one.asked(query))]


def active(filters: Sequence[Filter], query: Mapping[str, str], labels: Mapping[str, str]) -> list[Active]:
    """Those that the query, which has been looked at, asks for."""
    return [
        Active(words=f"{one.called(labels)}: {one.told(*one.asked(query))}", names=one.names)
        for one in filters
        if any(one.asked(query))
    ]
