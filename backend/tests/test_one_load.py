"""One load, counted by three who know nothing of each other: whoever asks, the app's analytics, and its metrics.

Two server processes on PostgreSQL and Redis. It takes 15 seconds; the whole proof takes a minute, and `-s` shows what
was found: `TEST_LOAD_SECONDS=60 ./scripts/test backend/tests/test_one_load.py -s`.
"""

import asyncio
import os
import re
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import cycle, islice, pairwise
from pathlib import Path
from typing import Any

import httpx2
import pytest
from alembic import command
from sqlalchemy import NullPool, create_engine, text
from sqlmodel import Session

from backend.core.config import DatabaseSettings
from backend.core.db import sync_engine, sync_url
from backend.core.observing import PROBES
from backend.features.users.models import User
from backend.main import create_app
from backend.testing import (
    PASSWORD,
    PASSWORD_HASH,
    OwnPostgreSQL,
    run_alembic,
    running_server,
    session_of,
    settings_for,
    token_for,
)

sketch = pytest.importorskip("backend.features.analytics.sketch")
pytest.importorskip("backend.features.metrics")
parse = pytest.importorskip("prometheus_client.parser").text_string_to_metric_families
pytest.importorskip("backend.features.process_time")  # whoever asks knows by it how long the app took

SECONDS = float(os.environ.get("TEST_LOAD_SECONDS", "15"))
CALLERS = 8
WITHIN = 30  # seconds; what is waited for takes one or two
USERS, USER = "/api/v1/users", "/api/v1/users/{user_id}"
TIMED = (("GET", USERS), ("GET", USER), ("PATCH", USER))  # all ask the database, which takes far longer than to measure
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
OWN = {"ANALYTICS__FLUSH_SECONDS": "0.2", "LOG__LEVEL": "error", "SERVER__WORKERS": "2"}

Kind = tuple[str, str, int]  # method, route, status
Route = tuple[str, str]  # method, route


class Log:
    """What whoever asks writes down of each answer: its kind, and the seconds that the app says it took."""

    def __init__(self) -> None:
        self.seconds: defaultdict[Kind, list[float]] = defaultdict(list)
        self.seconds["GET", "/openapi.json", 200].append(0)  # by which the test found out that the server is there

    async def ask(
        self, client: httpx2.AsyncClient, method: str, path: str, route: str, **options: Any
    ) -> httpx2.Response:
        answer = await client.request(method, path, **options)
        [milliseconds] = re.findall(r"app;dur=([\d.]+)", answer.headers["Server-Timing"])
        self.seconds[method, route, answer.status_code].append(float(milliseconds) / 1000)
        return answer

    def counts(self) -> dict[Kind, int]:
        return {kind: len(found) for kind, found in self.seconds.items()}

    def total(self) -> int:
        return sum(self.counts().values())

    def percentiles(self, *routes: Route) -> dict[str, float]:
        """Of these together; without any, of all."""
        found = sorted(one for kind, more in self.seconds.items() if not routes or kind[:2] in routes for one in more)
        return {name: found[int(share * (len(found) - 1))] for name, share in SHARES.items()}


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def users(url: str) -> tuple[list[int], dict[str, str]]:
    """The ids of those whom the load asks for, and the tokens of an administrator and of a member of staff."""
    people = [User(email=f"{role}@example.com", role=role, password_hash=PASSWORD_HASH) for role in ("admin", "staff")]
    people += [User(email=f"user-{number}@example.com", password_hash=PASSWORD_HASH) for number in range(50)]
    engine = sync_engine(DatabaseSettings(url=url))
    with Session(engine, expire_on_commit=False) as session:
        session.add_all(people)
        session.flush()
        session.add_all([session_of(one) for one in people[:2]])
        session.commit()
    engine.dispose()
    app = create_app(settings_for(url))
    return [one.id or 0 for one in people[2:]], {one.role: token_for(app, one) for one in people[:2]}


async def load(client: httpx2.AsyncClient, log: Log, ids: list[int], token: str) -> None:
    """Readers, writers, mistakes and strangers, for so long."""
    over = time.monotonic() + SECONDS
    known = {"Authorization": f"Bearer {token}"}

    async def call(caller: int) -> None:
        for id_ in islice(cycle(ids), caller, None):
            await log.ask(client, "GET", f"{USERS}?size=50", USERS, headers=known)
            await log.ask(client, "GET", f"{USERS}/{id_}", USER, headers=known)
            change = {"full_name": secrets.token_hex(4)}
            await log.ask(client, "PATCH", f"{USERS}/{id_}", USER, headers=known, json=change)
            await log.ask(client, "GET", f"{USERS}/999999", USER, headers=known)
            await log.ask(client, "GET", "/api/v1/auth/me", "/api/v1/auth/me")
            await log.ask(client, "GET", f"/no/such/{id_}", "unmatched")
            if time.monotonic() > over:
                return

    async with asyncio.TaskGroup() as callers:
        for caller in range(CALLERS):
            callers.create_task(call(caller))


class Stored:
    """What has been stored of what was counted."""

    def __init__(self, url: str) -> None:
        self.engine = create_engine(sync_url(url), poolclass=NullPool)

    def _ask(self, statement: str) -> list[Any]:
        with self.engine.connect() as connection:
            return [one for (one,) in connection.execute(text(statement))]

    async def wait_for(self, requests: int) -> None:
        """Until so many are there."""
        await until(lambda: (self._ask("SELECT SUM(requests) FROM api_usage WHERE NOT probe")[0] or 0) >= requests)

    def processes(self) -> set[str]:
        return {source.rpartition(".")[0] for source in self._ask("SELECT source FROM api_usage WHERE level = 0")}


def samples(exposed: str, name: str) -> list[tuple[dict[str, str], float]]:
    """Labels and value of each series of that name; not of what monitors ask."""
    found = [one for family in parse(exposed) for one in family.samples if one.name == name]
    return [(one.labels, one.value) for one in found if one.labels["route"] not in PROBES]


def by_kind(exposed: str) -> dict[Kind, int]:
    found = samples(exposed, "http_requests_total")
    return {(one["method"], one["route"], int(one["status"])): int(value) for one, value in found}


def brackets(exposed: str, method: str, route: str) -> dict[str, tuple[float, float]]:
    """The bounds of the buckets that hold p50, p95 and p99."""
    of_it = [
        (float(one["le"]), value)
        for one, value in samples(exposed, "http_request_duration_seconds_bucket")
        if (one["method"], one["route"]) == (method, route)
    ]
    buckets = sorted(of_it)
    ranks = {name: int(share * (buckets[-1][1] - 1)) for name, share in SHARES.items()}
    spans = list(pairwise([(0.0, 0.0), *buckets]))
    return {
        name: next((low, high) for (low, _), (high, below) in spans if below > rank) for name, rank in ranks.items()
    }


def page_figures(html: str) -> dict[str, str]:
    """What the dashboard shows large: label → text."""
    return dict(re.findall(r"<dt>([^<]+)</dt>\s*<dd>([^<]+)<", html))


def page_routes(html: str) -> dict[str, int]:
    """`GET /route` → requests, of the busiest."""
    [busiest] = re.findall(r"<caption>Busiest routes</caption>.*?</table>", html, re.DOTALL)
    rows = re.findall(r'<th scope="row">([^<]+)</th>\s*<td>([\d,]+)</td>', busiest)
    return {route: int(count.replace(",", "")) for route, count in rows}


def in_seconds(shown: str) -> float:
    number, unit = shown.split()
    return float(number.replace(",", "")) / {"s": 1, "ms": 1000}[unit]


def apart(one: float, other: float) -> int:
    """By how many bins of the sketch."""
    return abs(int(sketch.bin_of(one)) - int(sketch.bin_of(other)))


def of(route: Route, counts: Mapping[Kind, int]) -> int:
    return sum(count for kind, count in counts.items() if kind[:2] == route)


@dataclass(kw_only=True)
class Figures:
    """What the dashboard, its API and the metrics say, and what had been asked when they said so."""

    asked_before_statuses: dict[Kind, int]
    statuses: Any
    routes: dict[Route, Any]
    asked_before_page: dict[Kind, int]
    percentiles_before_page: dict[str, float]
    page: str
    exposed: str


async def read(client: httpx2.AsyncClient, log: Log, stored: Stored, token: str) -> Figures:
    """Each when all that was asked so far has been stored: reading one is a request, too."""

    async def analytics(*by: str) -> Any:
        await stored.wait_for(log.total())
        path, params = "/api/v2/analytics", {"range": "1h", "group_by": by}
        answer = await log.ask(client, "GET", path, path, params=params, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def metrics() -> str:
        return (await client.get("/metrics")).text

    before_statuses, statuses = log.counts(), await analytics("method", "route", "status")
    routes = await analytics("method", "route")
    await stored.wait_for(log.total())
    before_page, percentiles = log.counts(), log.percentiles()
    page = (await log.ask(client, "GET", "/status", "/status")).text
    async with asyncio.timeout(WITHIN):
        while sum(by_kind(exposed := await metrics()).values()) < log.total():
            await asyncio.sleep(0.05)
    return Figures(
        asked_before_statuses=before_statuses,
        statuses=statuses,
        routes={(one["method"], one["route"]): one for one in routes["groups"]},
        asked_before_page=before_page,
        percentiles_before_page=percentiles,
        page=page,
        exposed=exposed,
    )


def report(log: Log, found: Figures) -> Iterator[str]:
    shown = page_figures(found.page)
    yield f"{SECONDS:g} s of load. Requests in all: asked {log.total()}, metrics {sum(by_kind(found.exposed).values())}"
    yield f"Before the page was: asked {sum(found.asked_before_page.values())}, dashboard {shown['Requests']}"
    for name, seconds in found.percentiles_before_page.items():
        yield f"  {name}: asked {seconds * 1000:.2f} ms, dashboard {shown[name]}"
    for route in TIMED:
        one, counted = found.routes[route], of(route, by_kind(found.exposed))
        yield f"{' '.join(route)}: asked {of(route, log.counts())}, analytics {one['requests']}, metrics {counted}"
        asked = log.percentiles(route)
        for name, (low, high) in brackets(found.exposed, *route).items():
            yield (
                f"  {name}: asked {asked[name] * 1000:.2f} ms, analytics {one[f'{name}_ms']} ms, "
                f"metrics {low * 1000:g} to {high * 1000:g} ms"
            )


@pytest.fixture
async def after_a_load(own_postgresql: OwnPostgreSQL, tmp_path: Path) -> tuple[Log, Figures]:
    url, log, stored = own_postgresql.url, Log(), Stored(own_postgresql.url)
    run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
    ids, tokens = users(url)
    redis = {"REDIS_URL": os.environ["TEST_REDIS_URL"], "REDIS__PREFIX": f"test-{secrets.token_hex(4)}"}
    with running_server(DATABASE_URL=url, TMPDIR=str(tmp_path), **OWN, **redis) as base:
        await until(lambda: len(list(tmp_path.glob("*/gauge_livesum_*.db"))) == 2)  # both processes are there
        # Each request has a connection of its own: so both get their share.
        limits = httpx2.Limits(max_keepalive_connections=0)
        async with httpx2.AsyncClient(base_url=base, headers={"Origin": base}, limits=limits) as client:
            form = {"username": "staff@example.com", "password": PASSWORD}
            assert (await log.ask(client, "POST", "/admin/login", "/admin", data=form)).status_code == 303
            await load(client, log, ids, tokens["admin"])
            found = await read(client, log, stored, tokens["staff"])
    assert len(stored.processes()) == 2
    return log, found


@pytest.mark.slow
async def test_whoever_asks_the_dashboard_and_the_metrics_agree(after_a_load: tuple[Log, Figures]) -> None:
    """On each kind of request exactly, on percentiles within one bin of the sketch."""
    log, found = after_a_load
    print("", *report(log, found), sep="\n")  # noqa: T201

    assert by_kind(found.exposed) == log.counts()
    groups = {(one["method"], one["route"], one["status"]): one["requests"] for one in found.statuses["groups"]}
    assert groups == found.asked_before_statuses
    assert found.statuses["total"]["requests"] == sum(groups.values())
    shown = page_figures(found.page)
    assert int(shown["Requests"].replace(",", "")) == sum(found.asked_before_page.values())
    asked = {f"{method} {route}": of((method, route), found.asked_before_page) for method, route, _ in log.seconds}
    assert page_routes(found.page) == {route: count for route, count in asked.items() if count}

    for name, seconds in found.percentiles_before_page.items():
        assert apart(in_seconds(shown[name]), seconds) <= 1, name
    for route in TIMED:
        mine = log.percentiles(route)
        for name, (low, high) in brackets(found.exposed, *route).items():
            seconds = found.routes[route][f"{name}_ms"] / 1000
            assert apart(seconds, mine[name]) <= 1, (route, name)
            assert sketch.bin_of(low) <= sketch.bin_of(seconds) <= sketch.bin_of(high), (route, name)
