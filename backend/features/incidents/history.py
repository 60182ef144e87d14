"""What was up, and for how long: stored as sums per hour and day, and as exact moments of change.

`uptime`, `days`, `latencies` are for pages that show it: one statement each, however many components there are.
"""

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlmodel import col, delete
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.models import utc_now
from backend.core.read_session import rows
from backend.features.incidents.models import DAY, HOUR, ComponentState, Incident, Rollup, StateChange
from backend.features.incidents.schemas import DayOut, LatencyOut, UptimeOut
from backend.features.incidents.seen import Seen, starts
from backend.features.incidents.settings import IncidentsSettings

INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
DAYS_OF_HOURS = 8  # a week, and the hours of its first day
AT_ONCE = 1000  # rows; SQLite takes 32,766 values in one statement


async def add_looks(session: AsyncSession, seen: Seen) -> None:
    """Add these looks to the sums."""
    sums = [
        {"component": component, "span": span, "starts_at": start, **vars(tally)}
        for (component, span, start), tally in sorted(seen.tallies.items(), key=lambda one: one[0])
    ]
    for first in range(0, len(sums), AT_ONCE):
        await session.exec(_upsert(session.get_bind().dialect.name, sums[first : first + AT_ONCE]))


def _upsert(dialect: str, sums: list[dict[str, Any]]) -> Any:
    make = INSERTS.get(dialect, mysql.insert)
    statement = make(Rollup).values(sums)
    new = statement.excluded if dialect in INSERTS else statement.inserted
    changes: dict[str, Any] = {
        name: getattr(Rollup, name) + getattr(new, name) for name in ("looks", "looks_up", "latency_sum")
    }
    largest = col(Rollup.latency_max)
    changes["latency_max"] = case((largest < new.latency_max, new.latency_max), else_=largest)
    if dialect in INSERTS:
        return statement.on_conflict_do_update(index_elements=["component", "span", "starts_at"], set_=changes)
    return statement.on_duplicate_key_update(changes)


def _share(ups: Any, looks: Any) -> float | None:
    return float(ups) / float(looks) if looks else None


async def uptime(session: AsyncSession) -> list[UptimeOut]:
    """Of every component that was looked at within 90 days: the share of looks that found it up."""
    now = utc_now()
    windows = {
        "day": (HOUR, now - timedelta(days=1)),
        "week": (HOUR, now - timedelta(days=7)),
        "quarter": (DAY, now - timedelta(days=90)),
    }
    columns: list[ColumnElement[Any]] = []
    for name, (span, after) in windows.items():
        within = (col(Rollup.span) == span) & (col(Rollup.starts_at) > after)
        for what in (Rollup.looks_up, Rollup.looks):
            label = f"{name}_{'looks' if what is Rollup.looks else 'up'}"
            columns.append(func.sum(case((within, what), else_=0)).label(label))
    lately = (col(Rollup.span).in_([HOUR, DAY]), col(Rollup.starts_at) > windows["quarter"][1])
    component = col(Rollup.component)
    statement: Any = select(component, *columns).where(*lately).group_by(component).order_by(component)
    return [
        UptimeOut(
            component=row.component,
            day=_share(row.day_up, row.day_looks),
            week=_share(row.week_up, row.week_looks),
            quarter=_share(row.quarter_up, row.quarter_looks),
        )
        for row in await rows(session, statement)
    ]


async def _sums(session: AsyncSession, span: str, since: datetime) -> dict[str, dict[datetime, Any]]:
    """By component, in the order of their names, and by moment."""
    columns = (Rollup.component, Rollup.starts_at, Rollup.looks, Rollup.looks_up)
    more = (Rollup.latency_sum, Rollup.latency_max)
    recent = (col(Rollup.span) == span, col(Rollup.starts_at) >= since)
    statement: Any = select(*columns, *more).where(*recent).order_by(col(Rollup.component))  # type: ignore[call-overload]
    found: dict[str, dict[datetime, Any]] = {}
    for row in await rows(session, statement):
        found.setdefault(row.component, {})[row.starts_at] = row
    return found


async def days(session: AsyncSession, *, count: int = 90) -> dict[str, list[DayOut]]:
    """Of every component its last so many days, today's last: bars. A day without looks is there, without a share."""
    today = dict(starts(utc_now()))[DAY]
    all_days = [today - timedelta(days=ago) for ago in reversed(range(count))]

    def shown(day: datetime, row: Any) -> DayOut:
        on: date = day.date()
        return DayOut(day=on, uptime=_share(row.looks_up, row.looks) if row else None, looks=row.looks if row else 0)

    found = await _sums(session, DAY, all_days[0])
    return {component: [shown(day, by_day.get(day)) for day in all_days] for component, by_day in found.items()}


async def latencies(session: AsyncSession, *, hours: int = 24) -> dict[str, list[LatencyOut]]:
    """Of every component its last so many hours, this one last: a sparkline."""
    now = dict(starts(utc_now()))[HOUR]
    all_hours = [now - timedelta(hours=ago) for ago in reversed(range(hours))]

    def shown(hour: datetime, row: Any) -> LatencyOut:
        if row is None or not row.looks_up:
            return LatencyOut(at=hour, mean=None, max=None)
        return LatencyOut(at=hour, mean=round(row.latency_sum / row.looks_up, 2), max=row.latency_max)

    found = await _sums(session, HOUR, all_hours[0])
    return {component: [shown(hour, by_hour.get(hour)) for hour in all_hours] for component, by_hour in found.items()}


async def states(session: AsyncSession) -> Sequence[Any]:
    """What each component was at the last look, and since when."""
    names = ("component", "up", "since", "failures", "looked_at")
    columns = [getattr(ComponentState, name) for name in names]
    return await rows(session, select(*columns).order_by(col(ComponentState.component)))


async def changes(session: AsyncSession, *, limit: int = 100) -> Sequence[Any]:
    """The last moments at which components went down or came up, the newest first."""
    columns = [getattr(StateChange, name) for name in ("id", "component", "up", "at")]
    return await rows(session, select(*columns).order_by(col(StateChange.id).desc()).limit(limit))


async def forget(session: AsyncSession) -> None:
    """Delete what is over: hours after a week, the rest after the days that the settings say."""
    now = utc_now()
    oldest = now - timedelta(days=IncidentsSettings.current().days_kept)
    hours = (col(Rollup.span) == HOUR, col(Rollup.starts_at) < now - timedelta(days=DAYS_OF_HOURS))
    await session.exec(delete(Rollup).where(*hours))
    await session.exec(delete(Rollup).where(col(Rollup.span) == DAY, col(Rollup.starts_at) < oldest))
    await session.exec(delete(StateChange).where(col(StateChange.at) < oldest))
    await session.exec(delete(ComponentState).where(col(ComponentState.looked_at) < oldest))
    await session.exec(delete(Incident).where(col(Incident.resolved_at) < oldest))
