"""The database beside the servers: known to its planner, and off the core whose pauses are measured."""

import os
from contextlib import suppress
from pathlib import Path

import asyncpg
from sqlalchemy.engine import make_url

from bench.servers import LOAD_CORE


async def analyze(database: str) -> None:
    """What PostgreSQL does by itself within a minute. A table that it knows nothing of, it reads whole for any list."""
    connection = await _connect(database)
    await connection.execute("ANALYZE")
    await connection.close()


async def step_aside(database: str) -> None:
    """The processes that answer the servers, where they run on this machine, leave the servers their core."""
    connection = await _connect(database)
    found = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
    await connection.close()
    for (pid,) in found:
        with suppress(OSError):  # elsewhere, of another user, or no Linux
            if (Path("/proc") / str(pid) / "comm").read_text().strip() == "postgres":
                os.sched_setaffinity(pid, {LOAD_CORE})


async def _connect(database: str) -> asyncpg.Connection:
    return await asyncpg.connect(make_url(database).set(drivername="postgresql").render_as_string(hide_password=False))
