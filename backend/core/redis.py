"""Redis, when `REDIS__URL` is set: one client per app that fails fast instead of holding requests up.

redis-py's own defaults retry ten times over seconds; here a dead server costs one refused connection and a frozen one
costs `REDIS__TIMEOUT`, because what Redis serves (cache, limits) always has an answer without it. After a few failures
nobody asks it any more (`guarded`), until a try in the background finds it well again.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from backend.core.breakers import Breakers, CircuitOpen
from backend.core.config import BadSetting, RedisSettings

# Told of each round trip: the command's name, the moments of `time.perf_counter()` at which it began and ended, and
# what it failed with. Several commands sent at once are one, `PIPELINE` or `MULTI`.
observers: list[Callable[[str, float, float, BaseException | None], None]] = []


async def _watched(name: str, answer: Awaitable[Any]) -> Any:
    began, failure = time.perf_counter(), None
    try:
        return await answer
    except BaseException as exc:
        failure = exc
        raise
    finally:
        ended = time.perf_counter()
        for observe in observers:
            observe(name, began, ended, failure)


class _Pipeline(Pipeline):
    def execute(self, raise_on_error: bool = True) -> Any:
        answer = super().execute(raise_on_error)
        name = "MULTI" if self.is_transaction or self.explicit_transaction else "PIPELINE"
        return _watched(name, answer) if observers else answer


class _Client(Redis):
    """Has its round trips noted while anybody watches."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        answer = super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        return _watched(str(args[0]), answer) if observers else answer

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        return _Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


def connect(settings: RedisSettings) -> Redis | None:
    """A client for `settings.url`, or None when none is configured. Connects at first use; errors are RedisError."""
    if not settings.url:
        return None
    try:
        pool = BlockingConnectionPool.from_url(
            settings.url,
            max_connections=settings.max_connections,
            timeout=settings.timeout,
            socket_timeout=settings.timeout,
            socket_connect_timeout=settings.timeout,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as exc:
        raise BadSetting(f"REDIS__URL: {exc}") from exc
    return _Client.from_pool(pool)


async def probe(app: FastAPI) -> None:
    """Raises when Redis does not answer PING within its timeout."""
    await app.state.redis.ping()


class RedisAway(Exception):
    """Redis did not answer, or was not even asked because it has not answered lately: go on without it."""


@asynccontextmanager
async def guarded(client: Redis, breakers: Breakers) -> AsyncIterator[Redis]:
    """`async with guarded(app.state.redis, app.state.breakers) as redis:`; RedisAway when it cannot be had now."""
    breaker = await breakers.get("redis", threshold=3, seconds=1, trial=client.ping)
    try:
        async with breaker:
            yield client
    except (RedisError, OSError, CircuitOpen) as exc:
        raise RedisAway from exc
