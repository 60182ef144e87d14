"""What is stored of looks, and what is made of it: uptime, days, latencies, and for how long it is kept."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.health import Component, Report
from backend.core.models import utc_now
from backend.features.incidents import automatic, history, service
from backend.features.incidents.models import DAY, HOUR, ComponentState, Incident, Rollup, StateChange
from backend.features.incidents.seen import MOST_RUNS, Seen

Statements = Callable[[], AbstractContextManager[list[str]]]
Environment = Callable[..., None]


def report(**up: bool) -> Report:
    """`report(database=True, redis=False)`"""
    components = [
        Component(name=name, status="up" if works else "down", required=name == "database", latency_ms=2)
        for name, works in up.items()
    ]
    return Report(status="ok", components=components)


def rollup(component: str, span: str, at: datetime, looks: int, up: int, latency: float = 1) -> Rollup:
    sums: dict[str, Any] = {"looks": looks, "looks_up": up, "latency_sum": latency * up, "latency_max": latency}
    return Rollup(component=component, span=span, starts_at=at, **sums)


def this_hour() -> datetime:
    return utc_now().replace(minute=0, second=0)


async def stored(session: AsyncSession, seen: Seen) -> None:
    await history.add_looks(session, seen)
    await automatic.follow(session, seen.runs)
    await session.commit()


async def test_looks_are_added_to_what_is_stored_of_their_hour_and_day(session: AsyncSession) -> None:
    at = datetime(2026, 3, 29, 1, 59, 50, tzinfo=UTC)  # where Europe turns its clocks, which UTC does not
    for offset, up in ((0, True), (5, False), (20, True)):
        seen = Seen()
        seen.add(report(database=up, redis=True), at + timedelta(seconds=offset))
        await stored(session, seen)
    rows = (await session.exec(select(Rollup).where(Rollup.component == "database"))).all()
    found = {
        (row.span, row.starts_at.hour): (row.looks, row.looks_up, row.latency_sum, row.latency_max) for row in rows
    }
    assert found == {("hour", 1): (2, 1, 2, 2), ("hour", 2): (1, 1, 2, 2), ("day", 0): (3, 2, 4, 2)}


async def test_an_outage_seen_in_memory_is_the_same_as_one_stored_at_once(session: AsyncSession) -> None:
    at, seen = this_hour() - timedelta(hours=5), Seen()
    for number in range(300):  # one hour and 15 minutes, of which the second quarter down
        seen.add(report(database=not 60 <= number < 120), at + timedelta(seconds=15 * number))
    await stored(session, seen)
    changes = (await session.exec(select(StateChange).order_by(StateChange.id))).all()  # type: ignore[arg-type]
    assert [(one.up, one.at - at) for one in changes] == [
        (True, timedelta(0)),
        (False, timedelta(minutes=15)),
        (True, timedelta(minutes=30)),
    ]
    [incident] = (await session.exec(select(Incident))).all()
    assert (incident.opened_at, incident.resolved_at) == (at + timedelta(minutes=15), at + timedelta(minutes=30))
    assert (incident.status, incident.automatic, incident.watched) == ("resolved", True, None)
    assert "It was not for 15 minutes" in incident.updates[0].text
    [uptime] = await history.uptime(session)
    assert uptime.day == pytest.approx(240 / 300)


async def test_a_state_is_cheap_to_read(session: AsyncSession) -> None:
    at, seen = utc_now(), Seen()
    seen.add(report(database=True, redis=False), at)
    await stored(session, seen)
    states = {row.component: (row.up, row.since, row.failures) for row in await history.states(session)}
    assert states == {"database": (True, at, 0), "redis": (False, at, 1)}
    assert [(row.component, row.up) for row in await history.changes(session)] == [("redis", False), ("database", True)]


async def test_uptime_over_a_day_a_week_and_a_quarter(session: AsyncSession) -> None:
    hour, day = this_hour(), this_hour().replace(hour=0)
    session.add_all(
        [
            rollup("database", HOUR, hour, 100, 90),
            rollup("database", HOUR, hour - timedelta(hours=30), 100, 50),
            rollup("database", DAY, day, 100, 90),
            rollup("database", DAY, day - timedelta(days=60), 300, 300),
            rollup("database", DAY, day - timedelta(days=91), 300, 0),
            rollup("redis", DAY, day - timedelta(days=20), 10, 5),
        ]
    )
    await session.commit()
    database, redis = await history.uptime(session)
    assert (database.day, database.week, database.quarter) == (0.9, 0.7, 390 / 400)
    assert (redis.component, redis.day, redis.week, redis.quarter) == ("redis", None, None, 0.5)


async def test_a_day_without_looks_is_not_known_to_be_up(session: AsyncSession) -> None:
    day = this_hour().replace(hour=0)
    session.add_all([rollup("database", DAY, day, 4, 3), rollup("database", DAY, day - timedelta(days=2), 4, 4)])
    await session.commit()
    [bars] = (await history.days(session)).values()
    assert len(bars) == 90
    assert [(one.uptime, one.looks) for one in bars[-4:]] == [(None, 0), (1, 4), (None, 0), (0.75, 4)]
    assert bars[-1].day == day.date()


async def test_latencies_are_those_of_looks_that_were_answered(session: AsyncSession) -> None:
    hour = this_hour()
    session.add_all(
        [rollup("database", HOUR, hour, 4, 2, 3.5), rollup("database", HOUR, hour - timedelta(hours=2), 4, 0, 0)]
    )
    await session.commit()
    [line] = (await history.latencies(session)).values()
    assert len(line) == 24
    assert [(one.mean, one.max) for one in line[-3:]] == [(None, None), (None, None), (3.5, 3.5)]
    assert line[-1].at == hour


async def test_however_many_components_there_are_it_takes_one_statement(
    session: AsyncSession, statements: Statements
) -> None:
    seen = Seen()
    seen.add(report(**{f"part{number}": True for number in range(30)}), utc_now())
    await stored(session, seen)
    for read in (history.uptime, history.days, history.latencies):
        with statements() as sent:
            found = await read(session)
        assert len(found) == 30
        assert len(sent) == 1, sent


async def test_what_is_too_old_is_deleted(session: AsyncSession, environment: Environment) -> None:
    environment(INCIDENTS__DAYS_KEPT="100")
    hour, day, now = this_hour(), this_hour().replace(hour=0), utc_now()
    session.add_all(
        [
            *(rollup("database", HOUR, hour - timedelta(days=ago), 1, 1) for ago in (0, 7, 9)),
            *(rollup("database", DAY, day - timedelta(days=ago), 1, 1) for ago in (0, 99, 102)),
            *(StateChange(component="database", up=True, at=now - timedelta(days=ago)) for ago in (99, 102)),
            ComponentState(component="gone", up=True, since=now, looked_at=now - timedelta(days=102)),
            Incident(title="Old", status="resolved", resolved_at=now - timedelta(days=102)),
            Incident(title="Open since then", status="identified", opened_at=now - timedelta(days=102)),
        ]
    )
    await session.commit()
    await history.forget(session)
    rows = (await session.exec(select(Rollup))).all()
    assert sorted((row.span, (now - row.starts_at).days) for row in rows) == [
        ("day", 0),
        ("day", 99),
        ("hour", 0),
        ("hour", 7),
    ]
    assert len((await session.exec(select(StateChange))).all()) == 1
    assert (await session.exec(select(ComponentState))).all() == []
    assert [one.title for one in (await session.exec(select(Incident))).all()] == ["Open since then"]


async def test_an_incident_opens_after_so_many_failed_looks_once_and_closes(
    session: AsyncSession, environment: Environment
) -> None:
    environment(INCIDENTS__OPEN_AFTER="3")
    at = this_hour()
    for number in range(6):
        seen = Seen()
        seen.add(report(redis=False), at + timedelta(seconds=number))
        await stored(session, seen)
        incidents = (await session.exec(select(Incident))).all()
        assert len(incidents) == (1 if number >= 2 else 0)
    [incident] = incidents
    assert (incident.title, incident.components, incident.opened_at) == ("redis is not available", ["redis"], at)
    assert [one.status for one in incident.updates] == ["investigating"]
    seen = Seen()
    seen.add(report(redis=True), at + timedelta(seconds=3725))
    await stored(session, seen)
    await session.refresh(incident, ["updates", "status", "resolved_at"])
    assert incident.status == "resolved"
    assert incident.updates[0].text == "redis is available again. It was not for 1 hour 2 minutes."


async def test_what_somebody_has_closed_by_hand_stays_closed_until_it_fails_anew(session: AsyncSession) -> None:
    at = utc_now()

    async def looks(*found: bool) -> int:
        nonlocal at
        for up in found:
            at += timedelta(seconds=15)
            seen = Seen()
            seen.add(report(redis=up), at)
            await stored(session, seen)
        return len((await session.exec(select(Incident))).all())

    assert await looks(False, False) == 1
    [incident] = (await session.exec(select(Incident))).all()
    await service.add_update(session, incident, status="resolved", text="We do without it.")
    assert await looks(False, False) == 1
    assert await looks(True, False, False) == 2


async def test_what_was_closed_too_early_and_opened_again_closes_with_the_recovery(session: AsyncSession) -> None:
    at = utc_now()
    for up in (False, False, None, True):
        at += timedelta(seconds=15)
        if up is None:
            [incident] = (await session.exec(select(Incident))).all()
            await service.add_update(session, incident, status="resolved", text="By mistake.")
            await service.add_update(session, incident, status="identified", text="It is still away.")
        else:
            seen = Seen()
            seen.add(report(redis=up), at)
            await stored(session, seen)
    await session.refresh(incident, ["status", "resolved_at", "watched"])
    assert (incident.status, incident.watched) == ("resolved", None)


def test_what_flaps_while_nothing_can_be_stored_fills_no_memory() -> None:
    at, seen = this_hour(), Seen()
    for number in range(3 * MOST_RUNS):
        seen.add(report(redis=number % 2 == 0), at + timedelta(seconds=number))
    assert len(seen.runs) == MOST_RUNS
    assert sum(one.looks for (_, span, _), one in seen.tallies.items() if span == DAY) == 3 * MOST_RUNS


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "less than a second"), (61, "1 minute 1 second"), (7200, "2 hours"), (90061, "1 day 1 hour")],
)
def test_how_long_it_lasted_is_said_in_words(seconds: int, words: str) -> None:
    assert automatic.lasted(timedelta(seconds=seconds)) == words
