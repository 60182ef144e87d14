"""Health endpoints tell the truth, and tell strangers one word of it."""

from collections.abc import Callable

import httpx2
import pytest
from fastapi import FastAPI

from backend.testing import new_client

UNREACHABLE = "postgresql://nobody@127.0.0.1:9/none"


@pytest.mark.parametrize("path", ["/live", "/ready", "/health"])
async def test_a_working_app_is_ok(client: httpx2.AsyncClient, path: str) -> None:
    answer = await client.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
    assert answer.headers["Cache-Control"] == "no-store"


async def test_staff_see_each_component(as_staff: httpx2.AsyncClient) -> None:
    body = (await as_staff.get("/health/detailed")).json()
    assert {one["name"]: one["status"] for one in body["components"]} == {"database": "up", "redis": "up"}
    assert all(one["latency_ms"] > 0 for one in body["components"])


async def test_staff_sees_which_circuits_are_open(app: FastAPI, as_staff: httpx2.AsyncClient) -> None:
    breaker = await app.state.breakers.get("only here", threshold=1)
    with pytest.raises(LookupError):
        async with breaker:
            raise LookupError
    circuits = (await as_staff.get("/health/detailed")).json()["circuits"]
    assert circuits == app.state.breakers.states()
    assert circuits["only here"] == "opened"


async def test_without_a_database_the_app_lives_but_is_not_ready(make_app: Callable[..., FastAPI]) -> None:
    async with new_client(make_app(DATABASE_URL=UNREACHABLE)) as client:
        assert (await client.get("/live")).status_code == 200
        for path in ("/ready", "/health"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()) == (503, {"status": "down"})
            assert answer.headers["Retry-After"] == "1"


async def test_without_redis_the_app_is_degraded_but_ready(make_app: Callable[..., FastAPI]) -> None:
    async with new_client(make_app(REDIS_URL="redis://127.0.0.1:9")) as client:
        answer = await client.get("/ready")
        assert (answer.status_code, answer.json()) == (200, {"status": "degraded"})
