"""Usage through HTTP."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import insert
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.models import utc_now
from backend.features.analytics.counting import counts_of
from backend.features.analytics.models import FLUSHED, UNTIMED, ApiUsage
from backend.features.analytics.rolling_up import whole
from backend.features.analytics.service import POINTS, SKETCHES, Tally, points, totals
from backend.features.analytics.sketch import bin_of
from backend.features.analytics.storing import flush
from backend.testing import new_client

ANALYTICS = "/api/v2/analytics"

Statements = Callable[[], AbstractContextManager[list[str]]]


def usage(route: str = "/things", *, minutes_ago: float = 10, seconds: float = 0.02, **changes: Any) -> dict[str, Any]:
    start = whole(utc_now() - timedelta(minutes=minutes_ago), 60)
    requests = changes.setdefault("requests", 1)
    kind = {"method": "GET", "route": route, "status": 200, "client": "token", "probe": False, "bin": bin_of(seconds)}
    times = {"micros": int(seconds * 1e6) * requests, "statements": 2 * requests, "sql_micros": 5_000 * requests}
    return {"level": FLUSHED, "start": start, "source": "a:1:b.1", **kind, **times, **changes}


async def plant(session: AsyncSession, *found: dict[str, Any]) -> None:
    await session.exec(insert(ApiUsage), params=list(found))
    await session.commit()


async def ask(caller: httpx2.AsyncClient, /, **query: Any) -> dict[str, Any]:
    answer = await caller.get(ANALYTICS, params=query)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


async def test_what_was_asked_is_what_is_told(app: FastAPI, as_staff: httpx2.AsyncClient) -> None:
    counts_of(app).take()
    async with new_client(app) as stranger:
        for _ in range(3):
            await stranger.get("/api/v1/users/1")
        await stranger.get("/live")
    await flush(app.state.database, counts_of(app))
    told = await ask(as_staff, range="1h", group_by=["route", "status", "client"])
    [group] = told["groups"]
    assert (group["route"], group["status"], group["client"]) == ("/api/v1/users/{user_id}", 401, "anonymous")
    assert (group["requests"], group["errors"], group["method"]) == (3, 0, None)
    assert 0 < group["p50_ms"] <= group["p99_ms"]
    assert told["total"]["requests"] == 3
    assert (await ask(as_staff, range="1h", probes=True))["total"]["requests"] == 4


async def test_groups_of_several_kinds(session: AsyncSession, as_staff: httpx2.AsyncClient) -> None:
    await plant(
        session,
        usage("/a", requests=3),
        usage("/a", requests=2, status=500),
        usage("/a", requests=1, method="POST"),
        usage("/b", requests=4, client="api_key"),
    )
    routes = (await ask(as_staff, group_by="route"))["groups"]
    assert [(one["route"], one["requests"], one["errors"]) for one in routes] == [("/a", 6, 2), ("/b", 4, 0)]
    both = (await ask(as_staff, group_by=["method", "client"]))["groups"]
    assert [(one["method"], one["client"], one["requests"]) for one in both] == [
        ("GET", "token", 5),
        ("GET", "api_key", 4),
        ("POST", "token", 1),
    ]
    assert len((await ask(as_staff, group_by=["route", "method", "status", "client"]))["groups"]) == 4
    assert (await ask(as_staff))["groups"] == []


async def test_the_slowest_the_busiest_and_the_most_broken(session: AsyncSession, as_staff: httpx2.AsyncClient) -> None:
    await plant(
        session,
        usage("/busy", requests=100, seconds=0.01),
        usage("/slow", requests=2, seconds=1),
        usage("/slow", requests=100, method="WS", bin=UNTIMED, micros=0, minutes_ago=11),
        usage("/heavy", requests=50, seconds=0.5),
        usage("/broken", requests=5, seconds=0.001, status=503),
    )

    async def first(order: str) -> str:
        [group] = (await ask(as_staff, group_by="route", order=order, limit=1))["groups"]
        return str(group["route"])

    assert await first("requests") == "/slow", "WebSockets are counted"
    assert await first("errors") == "/broken"
    assert await first("time") == "/heavy"
    assert await first("mean") == "/slow", "but have no latency"


async def test_figures_of_a_group(session: AsyncSession, as_staff: httpx2.AsyncClient) -> None:
    fast = [usage(requests=90, seconds=0.01)]
    slow = [usage(requests=10, seconds=1.0, statements=200, sql_micros=10_000_000, minutes_ago=11)]
    await plant(session, *fast, *slow)
    told = await ask(as_staff, range="1h", group_by="route")
    [group] = told["groups"]
    assert group["p50_ms"] == pytest.approx(10, rel=0.06)
    assert group["p95_ms"] == pytest.approx(1000, rel=0.06)
    assert group["mean_ms"] == pytest.approx(109, rel=0.001)
    assert group["mean_statements"] == 3.8
    assert group["mean_sql_ms"] == pytest.approx(104.5)
    assert group["per_second"] == pytest.approx(100 / 3600, rel=0.1)
    total = {**told["total"], "route": "/things"}
    assert total == group


async def test_a_series_has_every_step(session: AsyncSession, as_staff: httpx2.AsyncClient) -> None:
    await plant(session, usage(minutes_ago=30, requests=2), usage(minutes_ago=10), usage(minutes_ago=10, status=500))
    told = await ask(as_staff, range="1h", step=60)
    assert told["step_seconds"] == 60
    series = told["series"]
    starts = [datetime.fromisoformat(one["start"]) for one in series]
    assert {later - earlier for earlier, later in pairwise(starts)} == {timedelta(minutes=1)}
    assert [(one["requests"], one["errors"]) for one in series if one["requests"]] == [(2, 0), (2, 1)]
    assert {one["p50_ms"] for one in series if not one["requests"]} == {None}


@pytest.mark.parametrize(("name", "step"), [("1h", 60), ("24h", 600), ("7d", 3600), ("90d", 86_400)])
async def test_a_fitting_step(as_staff: httpx2.AsyncClient, name: str, step: int) -> None:
    told = await ask(as_staff, range=name)
    assert told["step_seconds"] == step
    assert len(told["series"]) <= POINTS + 1


async def test_a_period_of_ones_own(session: AsyncSession, as_staff: httpx2.AsyncClient) -> None:
    await plant(session, *(usage(minutes_ago=minutes) for minutes in (200, 100, 5)))
    now = utc_now()
    since, until = now - timedelta(minutes=150), now - timedelta(minutes=50)
    told = await ask(as_staff, since=since.isoformat(), until=until.isoformat())
    assert told["total"]["requests"] == 1
    assert datetime.fromisoformat(told["since"]) <= since
    assert datetime.fromisoformat(told["until"]) >= until


@pytest.mark.parametrize(
    ("name", "value", "left"),
    [("route", "/a", 1), ("method", "POST", 2), ("status", 404, 4), ("client", "api_key", 8), ("route", "/none", 0)],
)
async def test_only_some(
    session: AsyncSession, as_staff: httpx2.AsyncClient, name: str, value: object, left: int
) -> None:
    await plant(
        session,
        usage("/a"),
        usage(method="POST", requests=2),
        usage(status=404, requests=4),
        usage(client="api_key", requests=8),
    )
    assert (await ask(as_staff, **{name: value}))["total"]["requests"] == left


async def test_without_anything_stored_there_are_zeros(as_staff: httpx2.AsyncClient) -> None:
    told = await ask(as_staff, group_by="route")
    assert (told["total"]["requests"], told["total"]["p99_ms"], told["groups"]) == (0, None, [])


@pytest.mark.parametrize(
    "query",
    [
        "range=2h",
        "range=1h&since=2026-01-01T00:00:00Z",
        "until=2026-01-01T00:00:00Z",
        "since=2999-01-01T00:00:00Z",
        "since=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z",
        "since=0001-01-01T00:00:00Z",
        "since=yesterday",
        "range=90d&step=60",
        "range=24h&step=90",
        "range=90d&step=90000",
        "range=24h&step=0",
        "range=24h&step=60",
        "group_by=user",
        "group_by=probe",
        "order=random",
        "limit=0",
        "limit=501",
        "status=1",
        "route=",
        "route=%00",
    ],
)
async def test_what_makes_no_sense_is_422(as_staff: httpx2.AsyncClient, query: str) -> None:
    answer = await as_staff.get(f"{ANALYTICS}?{query}")
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["code"]


async def test_only_staff_see_it(client: httpx2.AsyncClient, as_user: httpx2.AsyncClient) -> None:
    assert (await client.get(ANALYTICS)).status_code == 401
    assert (await as_user.get(ANALYTICS)).status_code == 403
    assert (await client.get("/api/v1/analytics")).status_code == 404


async def test_it_costs_the_same_statements_whatever_there_is(
    session: AsyncSession, as_staff: httpx2.AsyncClient, statements: Statements
) -> None:
    query = {"range": "24h", "group_by": ["route", "status"]}
    await ask(as_staff, **query)
    with statements() as few:
        await ask(as_staff, **query)
    rows = [usage(f"/{number % 50}", minutes_ago=number % 300, seconds=0.001 * number) for number in range(1, 2000)]
    await plant(session, *rows)
    with statements() as many:
        told = await ask(as_staff, **query)
    assert len(told["groups"]) == 50
    assert len(many) == len(few)
    assert len([one for one in many if "api_usage" in one]) == 2


async def test_no_request_sends_sql_to_be_counted(as_staff: httpx2.AsyncClient, statements: Statements) -> None:
    await as_staff.get("/api/v1/users/1")
    with statements() as seen:
        await as_staff.get("/api/v1/users/1")
    assert not [one for one in seen if "api_usage" in one]


async def test_the_service_reads_no_more_groups_than_are_asked_for(session: AsyncSession) -> None:
    await plant(session, *(usage(f"/{number}", requests=number) for number in range(1, 20)))
    now = utc_now()
    found = await totals(session, since=now - timedelta(hours=1), until=now, limit=3)
    assert [one.requests for one in found] == [19, 18, 17]


async def test_large_answers_let_others_have_their_turn() -> None:
    starts = [utc_now() + timedelta(minutes=number) for number in range(SKETCHES * 10)]
    turns, ended = 0, False

    async def other() -> None:
        nonlocal turns
        while not ended:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(other())
        found = await points({start: Tally(requests=1, bins={bin_of(0.02): 1}) for start in starts})
        ended = True
    assert len(found) == len(starts)
    assert turns >= 10
