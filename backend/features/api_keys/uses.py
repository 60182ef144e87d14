"""When and from where each key was last used: kept in memory, written in one batch now and then, and at the stop.

A write per request would make every read a write. Of several processes, the latest use counts, whoever writes last.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import structlog
from fastapi import FastAPI
from sqlalchemy import bindparam, or_, update
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import SQLModel

from backend.core import context
from backend.core.auth import Principal
from backend.core.db import Database
from backend.core.models import utc_now
from backend.features.api_keys.models import ApiKey
from backend.features.api_keys.settings import ApiKeysSettings

log = structlog.get_logger(__name__)

_keys = SQLModel.metadata.tables[ApiKey.__tablename__]
_FORWARD = (
    update(_keys)
    .where(
        _keys.c.id == bindparam("key"), or_(_keys.c.last_used_at.is_(None), _keys.c.last_used_at <= bindparam("moment"))
    )
    .values(last_used_at=bindparam("moment"), last_used_address=bindparam("address"))
)


class Uses:
    """The last use of each key that is not stored yet."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[datetime, str]] = {}

    def note(self, principal: Principal) -> None:
        if principal.credential is not None:
            self._last[principal.credential] = (utc_now(), context.address())

    async def store(self, database: Database) -> None:
        """Write what came since the last time; kept for the next time when the database is away."""
        noted, self._last = self._last, {}
        if not noted:
            return
        # in the order of keys: two processes that lock the same rows do not wait for each other in a circle
        rows = [{"key": key, "moment": at, "address": address} for key, (at, address) in sorted(noted.items())]
        try:
            async with database.session() as session:
                await (await session.connection()).execute(_FORWARD, rows)
                await session.commit()
        except (SQLAlchemyError, OSError) as exc:
            self._last = noted | self._last
            log.warning("api_key_uses_not_stored", keys=len(noted), error=type(exc).__name__)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Store now and then while the app runs, and what is left when it stops."""
    uses = app.state.api_key_uses = Uses()
    seconds = ApiKeysSettings.current().store_use_seconds
    ended = asyncio.Event()

    async def now_and_then() -> None:
        while not ended.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await ended.wait()
            except TimeoutError:
                await uses.store(app.state.database)

    task = asyncio.create_task(now_and_then())
    try:
        yield
    finally:
        ended.set()
        await task  # not cancelled: a write under way is finished
        await uses.store(app.state.database)
