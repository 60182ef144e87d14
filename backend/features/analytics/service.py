"""How the API was used: over time, and by route, method, status or caller. The database sums, whatever it holds."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar, get_args

from sqlalchemy import BigInteger, ColumnElement, and_, case, cast, literal_column
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.errors import Unprocessable
from backend.core.models import utc_now
from backend.core.read_session import rows
from backend.features.analytics.models import COARSE, FINE, SUMS, UNTIMED, ApiUsage
from backend.features.analytics.rolling_up import FIVE, whole
from backend.features.analytics.settings import AnalyticsSettings
from backend.features.analytics.sketch import quantiles

T = TypeVar("T")
By = Literal["route", "method", "status", "client"]
Order = Literal["requests", "errors", "time", "mean"]

STEPS = (60, 300, 600, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800)
POINTS = 200  # as many as a picture shows
MOST_POINTS = 500
MOST_GROUPS = 500
SKETCHES = 20  # with percentiles, before others have their turn on the event loop
FAILED = 500  # the first status that is our fault


class SinceEpoch(FunctionElement[int]):
    """A stored moment as seconds since 1970."""

    type = BigInteger()
    inherit_cache = True


@compiles(SinceEpoch, "sqlite")
def _sqlite(element: Any, compiler: Any, **kw: Any) -> str:
    return f"CAST(strftime('%s', {compiler.process(element.clauses, **kw)}) AS INTEGER)"


@compiles(SinceEpoch, "postgresql")
def _postgresql(element: Any, compiler: Any, **kw: Any) -> str:
    return f"CAST(EXTRACT(epoch FROM {compiler.process(element.clauses, **kw)}) AS BIGINT)"


@compiles(SinceEpoch, "mysql", "mariadb")
def _mysql(element: Any, compiler: Any, **kw: Any) -> str:
    return f"TIMESTAMPDIFF(SECOND, '1970-01-01', {compiler.process(element.clauses, **kw)})"


@dataclass(frozen=True, kw_only=True)
class Filters:
    """What to look at; all conditions hold at once. `probes`: those of monitors, too."""

    probes: bool = False
    route: str | None = None
    method: str | None = None
    status: int | None = None
    client: str | None = None


EVERYTHING = Filters()


@dataclass
class Tally:
    """Requests that are counted together. Times in seconds, None where there is nothing to measure."""

    requests: int = 0
    errors: int = 0  # 5xx
    statements: int = 0
    sql_seconds: float = 0
    seconds: float = 0
    bins: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, row: Any) -> None:
        """One row of `_sums`."""
        self.requests += int(row.requests)
        self.errors += int(row.errors)
        self.statements += int(row.statements)
        self.sql_seconds += int(row.sql_micros) / 1e6
        self.seconds += int(row.micros) / 1e6
        if row.bin != UNTIMED:
            self.bins[row.bin] += int(row.requests)

    @property
    def mean(self) -> float | None:
        timed = sum(self.bins.values())
        return self.seconds / timed if timed else None

    @property
    def mean_sql(self) -> float | None:
        return self.sql_seconds / self.requests if self.requests else None

    @property
    def mean_statements(self) -> float | None:
        return self.statements / self.requests if self.requests else None

    def percentiles(self) -> dict[str, Any]:
        """p50, p95 and p99."""
        return dict(zip(("p50", "p95", "p99"), quantiles(self.bins, 0.5, 0.95, 0.99), strict=True))


@dataclass(frozen=True, kw_only=True)
class Point:
    """One step of a series."""

    start: datetime
    requests: int
    errors: int
    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, kw_only=True)
class Total:
    """One group. What it was not grouped by is None."""

    route: str | None = None
    method: str | None = None
    status: int | None = None
    client: str | None = None
    requests: int
    errors: int
    per_second: float
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    mean_statements: float | None
    mean_sql: float | None


@dataclass(frozen=True, kw_only=True)
class Period:
    """From when until when, in whole steps of so many seconds."""

    since: datetime
    until: datetime
    step: int

    @property
    def seconds(self) -> float:
        """How much of it has passed."""
        return max(1.0, (min(self.until, utc_now()) - self.since).total_seconds())

    @property
    def starts(self) -> list[datetime]:
        count = int((self.until - self.since).total_seconds()) // self.step
        return [self.since + timedelta(seconds=self.step * number) for number in range(count)]


def _finest(since: datetime) -> int:
    """The smallest step that figures of that age are kept by."""
    rules, age = AnalyticsSettings.current(), utc_now() - since
    if age > timedelta(days=rules.hours_days):
        return 86_400
    return 3600 if age > timedelta(days=rules.minutes_days) else 60


def period(since: datetime, until: datetime, step: int | None = None) -> Period:
    """Whole steps around these moments, of a fitting length unless one is given. Unprocessable when there are none."""
    until = min(until, utc_now())
    if since >= until:
        raise Unprocessable("`since` must be before `until`, and in the past")
    finest, seconds = _finest(since), (until - since).total_seconds()
    if step is None:
        step = next((one for one in STEPS if one >= finest and seconds / one <= POINTS), STEPS[-1])
    elif step % finest:
        raise Unprocessable(f"So long ago, figures are kept in steps of {finest} seconds: ask for a multiple of that")
    if seconds / step > MOST_POINTS:
        raise Unprocessable(f"That would be more than {MOST_POINTS} points: ask for a shorter time, or a longer step")
    end = whole(until, step)
    if end < until:
        end += timedelta(seconds=step)
    return Period(since=whole(since, step), until=end, step=step)


def _conditions(since: datetime, until: datetime, filters: Filters, step: int = FIVE) -> list[ColumnElement[bool]]:
    odd = step % FIVE or any(moment != whole(moment, FIVE) for moment in (since, until))
    conditions = [
        col(ApiUsage.level).in_(FINE if odd else COARSE),
        col(ApiUsage.start) >= since,
        col(ApiUsage.start) < until,
    ]
    if not filters.probes:
        conditions.append(col(ApiUsage.probe).is_(False))
    given = {name: value for name in get_args(By) if (value := getattr(filters, name)) is not None}
    return conditions + [col(getattr(ApiUsage, name)) == value for name, value in given.items()]


def _errors() -> ColumnElement[int]:
    return func.sum(case((col(ApiUsage.status) >= FAILED, col(ApiUsage.requests)), else_=0))


def _sums() -> list[ColumnElement[Any]]:
    sums = {"errors": _errors()} | {name: func.sum(col(getattr(ApiUsage, name))) for name in SUMS}
    # as whole numbers: databases' sums are decimals, which cost Python more than all the rest
    return [cast(one, BigInteger).label(name) for name, one in sums.items()]


async def _in_turns(many: Iterable[T], at_once: int = 500) -> AsyncIterator[T]:
    """Each of them; others have their turn on the event loop now and then."""
    for number, one in enumerate(many, 1):
        yield one
        if number % at_once == 0:
            await asyncio.sleep(0)


async def over_time(session: AsyncSession, chosen: Period, filters: Filters = EVERYTHING) -> dict[datetime, Tally]:
    """Each step of the period, those in which nothing happened too."""
    step: ColumnElement[int] = literal_column(
        str(int(chosen.step))
    )  # no parameter: PostgreSQL would not know it again in GROUP BY
    moment: ColumnElement[int] = SinceEpoch(col(ApiUsage.start))
    bucket = moment - moment % step
    found = await rows(
        session,
        select(bucket.label("bucket"), col(ApiUsage.bin), *_sums())
        .where(*_conditions(chosen.since, chosen.until, filters, chosen.step))
        .group_by(bucket, col(ApiUsage.bin)),
    )
    tallies = {start: Tally() for start in chosen.starts}
    async for row in _in_turns(found):
        tallies[datetime.fromtimestamp(int(row.bucket), UTC)].add(row)
    return tallies


async def points(tallies: dict[datetime, Tally]) -> list[Point]:
    """What to draw."""
    return [
        Point(start=start, requests=one.requests, errors=one.errors, **one.percentiles())
        async for start, one in _in_turns(tallies.items(), SKETCHES)
    ]


async def series(
    session: AsyncSession, *, since: datetime, until: datetime, step: int | None = None, filters: Filters = EVERYTHING
) -> list[Point]:
    """Requests, errors and latencies over time."""
    return await points(await over_time(session, period(since, until, step), filters))


def total_of(tallies: Iterable[Tally], seconds: float, **kind: Any) -> Total:
    """All of these together."""
    together = Tally()
    for one in tallies:
        for name in ("requests", "errors", "statements", "sql_seconds", "seconds"):
            setattr(together, name, getattr(together, name) + getattr(one, name))
        for bin_, count in one.bins.items():
            together.bins[bin_] += count
    return Total(
        **kind,
        requests=together.requests,
        errors=together.errors,
        per_second=together.requests / seconds,
        mean=together.mean,
        mean_statements=together.mean_statements,
        mean_sql=together.mean_sql,
        **together.percentiles(),
    )


def _rank(order: Order, sums: Any) -> ColumnElement[Any]:
    """By what groups are ordered, from the sums of their bins."""
    if order == "errors":
        return func.sum(sums.errors)
    if order == "time":
        return func.sum(sums.micros)
    if order == "mean":
        timed = func.sum(case((sums.bin != UNTIMED, sums.requests), else_=0))
        return func.coalesce(func.sum(sums.micros) * 1.0 / func.nullif(timed, 0), 0)
    return func.sum(sums.requests)


async def totals(
    session: AsyncSession,
    *,
    since: datetime,
    until: datetime,
    by: Sequence[By] = ("route",),
    order: Order = "requests",
    limit: int = 100,
    filters: Filters = EVERYTHING,
) -> list[Total]:
    """The groups with the most requests, errors or time in all, or the slowest on average; the first ones."""
    by = tuple(dict.fromkeys(by))
    kinds = [col(getattr(ApiUsage, name)) for name in by]
    summed: Any = select(*kinds, col(ApiUsage.bin), *_sums()).where(*_conditions(since, until, filters))  # type: ignore[call-overload]
    statement = summed.group_by(*kinds, col(ApiUsage.bin))
    if by:
        sums = statement.cte("sums")
        groups = [sums.c[name] for name in by]
        rank = _rank(order, sums.c)
        first: Any = select(*groups, rank.label("rank_")).group_by(*groups).order_by(rank.desc(), *groups)  # type: ignore[call-overload]
        first = first.limit(min(limit, MOST_GROUPS)).subquery("first_ones")
        same = and_(*(kind == first.c[name] for name, kind in zip(by, groups, strict=True)))
        statement = select(sums, first.c.rank_).join(first, same)
    found: dict[tuple[Any, ...], Tally] = defaultdict(Tally)
    ranks: dict[tuple[Any, ...], float] = {}
    async for row in _in_turns(await rows(session, statement)):
        kind = tuple(getattr(row, name) for name in by)
        found[kind].add(row)
        ranks[kind] = float(row.rank_) if by else 0
    passed = max(1.0, (min(until, utc_now()) - since).total_seconds())
    return [
        total_of([found[kind]], passed, **dict(zip(by, kind, strict=True)))
        async for kind in _in_turns(sorted(found, key=lambda one: (-ranks[one], one)), SKETCHES)
    ]
