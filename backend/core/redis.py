"""Redis, when `REDIS__URL` is set: one client per app that fails fast instead of holding requests up.

redis-py's own defaults retry ten times over seconds; here a dead server costs one refused connection and a frozen one
costs `REDIS__TIMEOUT`, because what Redis serves (cache, limits) always has an answer without it.
"""

from fastapi import FastAPI
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from backend.core.config import BadSetting, RedisSettings


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
    return Redis.from_pool(pool)


async def probe(app: FastAPI) -> None:
    """Raises when Redis does not answer PING within its timeout."""
    await app.state.redis.ping()
