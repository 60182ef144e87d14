"""How current a copy of the database is: measured by what the primary had written when, by our clock alone.

The clocks of the servers do not matter, nor when the last transaction was: a copy of an idle primary is current.
"""

import time
from collections import deque
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

NEVER = float("-inf")
SAMPLES = 20

# How far the primary's log has been written, and how far a copy has replayed it (null: it is no copy), in bytes.
WRITTEN = text("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')")
REPLAYED = text("SELECT CASE WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0') END")
# MariaDB 10.5, MySQL 8.0.22; the user needs the right REPLICA MONITOR, or REPLICATION CLIENT.
STATUS = text("SHOW REPLICA STATUS")
BEHIND = ("Seconds_Behind_Master", "Seconds_Behind_Source")


async def _asked(engine: AsyncEngine, statement: Any) -> Any:
    async with engine.connect() as connection:
        return (await connection.execute(statement)).mappings().first()


class Positions:
    """What the primary had written at the last few moments at which one copy was looked at."""

    def __init__(self, primary: AsyncEngine, copy: AsyncEngine) -> None:
        self._primary, self._copy = primary, copy
        self._written: deque[tuple[float, Any]] = deque(maxlen=SAMPLES)

    async def as_of(self) -> float:
        """The latest moment (`time.monotonic()`) whose writes are all in the copy; NEVER when none is known."""
        if self._copy.dialect.name != "postgresql":
            return await self._by_status()
        moment = time.monotonic()
        [written] = (await _asked(self._primary, WRITTEN)).values()
        self._written.append((moment, written))
        [replayed] = (await _asked(self._copy, REPLAYED)).values()
        if replayed is None:
            return NEVER
        return max((when for when, position in self._written if position <= replayed), default=NEVER)

    async def _by_status(self) -> float:
        moment = time.monotonic()
        status = await _asked(self._copy, STATUS) or {}
        behind = next((status[name] for name in BEHIND if status.get(name) is not None), None)
        return NEVER if behind is None else moment - float(behind)
