"""The database beside the servers: known to its planner, and off the core whose pauses are measured."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from bench.servers import LOAD_CORE, plain_url

OURS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def analyze(database: str) -> None:
    """What PostgreSQL does by itself within a minute.

    In a table that it knows nothing of, it takes few rows to be not deleted: for a list, it would read and sort all.
    """
    asyncio.run(_ask(database, "ANALYZE"))


@contextmanager
def aside(database: str) -> Iterator[None]:
    """The processes that answer the servers leave them their core meanwhile, where they run on this machine."""
    before = {}
    for pid in asyncio.run(_ask(database, OURS)):
        if movable(pid):
            before[pid] = os.sched_getaffinity(pid)
            os.sched_setaffinity(pid, {LOAD_CORE})
    try:
        yield
    finally:
        for pid, cores in before.items():
            if movable(pid):
                os.sched_setaffinity(pid, cores)


def movable(pid: int) -> bool:
    """Whether this is PostgreSQL, on this machine, and may be told where to run."""
    try:
        os.sched_setaffinity(pid, os.sched_getaffinity(pid))
        return (Path("/proc") / str(pid) / "comm").read_text().strip() == "postgres"
    except (AttributeError, OSError):
        return False


async def _ask(database: str, statement: str) -> list[int]:
    connection = await asyncpg.connect(plain_url(database))
    found = [row[0] for row in await connection.fetch(statement)]
    await connection.close()
    return found
