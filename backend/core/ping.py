"""Whether a pooled connection still works, asked in one round trip and with a limit.

SQLAlchemy's own ping takes three on asyncpg (BEGIN, `;`, ROLLBACK), and waits for a frozen server as for any answer.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine

from backend.core.pool import FairPool

# By driver: what asks, and what drops the connection without a word to the server. asyncpg's `execute` speaks the
# simple protocol, which leaves nothing behind in PgBouncer.
PINGS: dict[str, tuple[Callable[[Any], Awaitable[object]], str]] = {
    "asyncpg": (lambda connection: connection.execute("SELECT 1"), "terminate"),
    "aiomysql": (lambda connection: connection.ping(reconnect=False), "close"),
}


def ping_briefly(engine: AsyncEngine, seconds: float, *, always: bool) -> None:
    """Have the engine's pool ask so when it pings (`pool_pre_ping`)."""
    ask, drop = PINGS[engine.dialect.driver]
    pool = cast("FairPool", engine.pool)  # the one that replaces it knows what it knows

    async def answers(connection: Any) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await ask(connection)
        except Exception:  # noqa: BLE001  in whatever way: it is no good any more, and the pool opens another
            getattr(connection, drop)()
            return False
        return True

    def do_ping(connection: Any) -> bool:
        fresh = not always and pool.is_fresh(connection.driver_connection)
        return fresh or bool(connection.run_async(answers))

    @event.listens_for(engine.sync_engine, "checkin")
    def note_use(connection: Any, _record: Any) -> None:
        if connection is not None:
            pool.note_use(connection.driver_connection)

    engine.sync_engine.dialect.do_ping = do_ping  # type: ignore[method-assign,assignment]
