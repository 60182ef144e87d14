"""What is counted in memory, before anything is stored."""

import asyncio
import timeit
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from backend.core.observing import Ended
from backend.core.statements import Statements
from backend.features import FEATURES
from backend.features.analytics.counting import OTHER, Counts, counts_of
from backend.features.analytics.models import UNTIMED
from backend.features.analytics.settings import AnalyticsSettings
from backend.features.analytics.sketch import SHORTEST, bin_of
from backend.testing import new_client

MakeApp = Callable[..., FastAPI]


class Templates:
    """Every path is its own route."""

    def of(self, scope: Any, _root_path: str) -> str:
        return str(scope["path"])


def ended(
    path: str = "/things", *, method: str = "GET", status: int = 200, seconds: float = 0.01, kind: str = "http"
) -> Ended:
    state = {"statements": Statements(), "facts": {}}
    scope: Any = {"type": kind, "method": method, "path": path, "state": state}
    return Ended(scope, "", Templates(), status, seconds)  # type: ignore[arg-type]


def counts(**rules: Any) -> Counts:
    return Counts(AnalyticsSettings(**rules))


def requests(found: Counts) -> int:
    return sum(sums[0] for sums in found.waiting.values())


async def test_totals_are_exact_when_many_ask_at_once(make_app: MakeApp) -> None:
    app = make_app()
    before = counts_of(app).take()
    assert not before.counts
    async with new_client(app) as client:
        paths = ["/live", "/api/v1/nothing", "/api/v1/users/1", "/ready"] * 100
        answers = await asyncio.gather(*(client.get(path) for path in paths))
    counted: Counter[int] = Counter()
    for (_minute, _method, _route, status, *_rest), sums in counts_of(app).waiting.items():
        counted[status] += sums[0]
    assert counted == Counter(answer.status_code for answer in answers)


@pytest.mark.skipif("metrics" not in FEATURES, reason="compares with the feature metrics")
async def test_the_sum_is_that_of_the_metrics(make_app: MakeApp) -> None:
    app = make_app(METRICS__TOKEN="a-token-that-is-long-enough-for-anybody")
    async with new_client(app) as client:
        for path in ("/live", "/api/v1/nothing", "/api/v1/users/1", "/ready", "/api/v1/auth/token"):
            await client.get(path)
        headers = {"Authorization": "Bearer a-token-that-is-long-enough-for-anybody"}
        text = (await client.get("/metrics", headers=headers)).text
    lines = [line for line in text.splitlines() if line.startswith("http_requests_total{")]
    told = sum(float(line.rsplit(" ", 1)[1]) for line in lines)
    assert told == requests(counts_of(app)) - 1, "all but the one that asked for the metrics"


async def test_a_request_counts_its_statements(app: FastAPI, as_staff: httpx2.AsyncClient) -> None:
    counts_of(app).take()
    await as_staff.get("/api/v1/users/999999")
    [(kind, sums)] = counts_of(app).waiting.items()
    assert kind[1:6] == ("GET", "/api/v1/users/{user_id}", 404, "token", False)
    assert sums[0] == 1
    assert sums[1] > sums[3] > 0
    assert sums[2] >= 1


def test_probes_are_told_apart() -> None:
    found = counts()
    for path in ("/live", "/things"):
        found.observe(ended(path))
    assert {kind[2]: kind[5] for kind in found.waiting} == {"/live": True, "/things": False}


def test_a_websocket_is_counted_and_its_seconds_are_not() -> None:
    found = counts()
    found.observe(ended(kind="websocket"))
    [(kind, sums)] = found.waiting.items()
    assert (kind[1], kind[6], sums[:2]) == ("WS", UNTIMED, [1, 0])


def test_too_many_kinds_in_one_minute_are_one_route_and_none_is_lost() -> None:
    found = counts(keys_per_minute=10)
    for number in range(1000):
        found.observe(ended(f"/{number}"))
    routes = Counter(kind[2] for kind in found.waiting)
    assert len(routes) <= 2 * 11, "the minute may end meanwhile"
    assert requests(found) == 1000
    assert OTHER in routes


def test_a_long_outage_fills_no_memory_and_none_is_lost() -> None:
    found = counts(keys_waiting=100, keys_per_minute=100_000)
    for number in range(5000):
        found.observe(ended(f"/{number}", seconds=0.001 * (number % 50 + 1)))
    assert len(found.waiting) < 200
    assert requests(found) == 5000


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9, 1e9])
def test_odd_latencies_have_a_bin(seconds: float) -> None:
    assert bin_of(SHORTEST) <= bin_of(seconds) <= bin_of(1000)


def test_counting_costs_a_few_microseconds() -> None:
    found, one = counts(), ended()
    best = min(timeit.repeat(lambda: found.observe(one), number=1000, repeat=5)) / 1000
    assert best < 50e-6, "5 µs on a machine at rest"
