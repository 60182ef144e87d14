"""What the status page shows: panels that features contribute, as plain data, which the page draws.

A panel without a permission is for everybody: no hosts, versions, routes, errors or people in it.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Literal

from fastapi import FastAPI

Tone = Literal["", "good", "fair", "bad"]

UNKNOWN = "\N{EN DASH}"

RANGES = {
    "1h": timedelta(hours=1),
    "24h": timedelta(days=1),
    "7d": timedelta(days=7),
    "90d": timedelta(days=90),
}


@dataclass(frozen=True)
class Window:
    """The time that is looked at; `name` is one of `RANGES`."""

    name: str
    since: datetime
    until: datetime


@dataclass(frozen=True, kw_only=True)
class Stat:
    """One number, as people read it: `99.98 %`."""

    label: str
    value: str
    note: str = ""
    tone: Tone = ""


@dataclass(frozen=True)
class Stats:
    """Numbers side by side."""

    stats: Sequence[Stat]


@dataclass(frozen=True)
class Line:
    """The values of one curve; None where nothing is known."""

    label: str
    values: Sequence[float | None]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves over the same moments, all of one unit."""

    caption: str
    times: Sequence[datetime]
    lines: Sequence[Line]
    unit: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of text and numbers; `empty` says what it means that there are none."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]
    empty: str


@dataclass(frozen=True)
class Day:
    """How much of a day a component was up, 0 to 1; None: nobody looked."""

    on: date
    share: float | None


@dataclass(frozen=True, kw_only=True)
class History:
    """One component over time. `uptimes`: shares by the name of their range."""

    component: str
    days: Sequence[Day]
    uptimes: Mapping[str, float | None]
    latencies: Sequence[float | None] = ()  # milliseconds, the newest last


@dataclass(frozen=True)
class Histories:
    """Components over time."""

    components: Sequence[History]


@dataclass(frozen=True, kw_only=True)
class Update:
    """What was said about an incident, and when."""

    at: datetime
    status: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Incident:
    """Something that is, or was, wrong; its updates with the newest first."""

    title: str
    components: Sequence[str]
    status: str
    opened_at: datetime
    resolved_at: datetime | None
    updates: Sequence[Update]


@dataclass(frozen=True)
class Incidents:
    """Open ones and some that are over, the newest first; `empty` says what it means that there are none."""

    incidents: Sequence[Incident]
    empty: str


Block = Stats | Chart | Table | Histories | Incidents


@dataclass(frozen=True, kw_only=True)
class Panel:
    """A section of the page. `read` asks the database in sessions of its own, for three seconds at most."""

    title: str
    read: Callable[[FastAPI, Window], Awaitable[Sequence[Block]]]
    permission: str = ""  # empty: public


def share(value: float | None) -> str:
    """0.9998 → `99.98 %`. Rounded down: 100 % means that nothing was missing."""
    if value is None:
        return UNKNOWN
    hundredths = int(value * 10_000 + 1e-6)
    return f"{hundredths / 100:g} %"


def milliseconds(seconds: float | None) -> str:
    """0.0123 → `12.3 ms`."""
    if seconds is None:
        return UNKNOWN
    return f"{number(seconds * 1000)} ms" if seconds < 0.9995 else f"{number(seconds)} s"


def number(value: float) -> str:
    """12345.6 → `12,346`; small ones keep three digits: `12.3`, `0.25`."""
    if abs(value) >= 99.95 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.3g}"
