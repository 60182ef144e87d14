"""The level for now: a key in Redis that ends by itself, which each process looks at every few seconds.

Without Redis, or while it is away, what was asked for holds in the process that was asked.
"""

import asyncio
import time
from dataclasses import dataclass, replace
from typing import get_args

import structlog
from fastapi import FastAPI
from redis.asyncio import Redis
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core import logging
from backend.core.commits import after_commit
from backend.core.config import LogLevel, Settings
from backend.core.events import emit
from backend.core.housekeeping import regularly
from backend.core.redis import RedisAway, guarded
from backend.features.log_level.events import LogLevelChanged

log = structlog.get_logger(__name__)

EVERY = 3  # seconds between looks


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A level until a moment of `time.monotonic()`. `shared`: Redis has it, for all processes."""

    level: LogLevel
    until: float
    shared: bool

    @property
    def seconds_left(self) -> int:
        return max(0, round(self.until - time.monotonic()))


class Levels:
    """What holds in one app."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self.settings: Settings = app.state.settings
        self.key = f"{self.settings.redis.prefix}:log_level"
        self.wish: Wish | None = None
        self.sharing: asyncio.Task[Wish] | None = None

    @property
    def level(self) -> LogLevel:
        return self.wish.level if self.wish else self.settings.log.level

    def take(self, wish: Wish | None) -> None:
        before, self.wish = self.level, wish
        if self.level != before:
            line = {"before": before, "now": self.level, "seconds": wish.seconds_left if wish else None}
            log.error("log_level", **line)  # before and after: one of the two may be too quiet for it
            logging.choose_level(wish.level if wish else None, self.settings)

    def ask_for(self, level: LogLevel, seconds: int) -> asyncio.Task[Wish]:
        """Take it at once, and tell the other processes, by the end of the task."""
        wish = Wish(level=level, until=time.monotonic() + seconds, shared=False)
        self.take(wish)
        self.sharing = asyncio.create_task(self._share(wish, seconds))
        return self.sharing

    async def _share(self, wish: Wish, seconds: int) -> Wish:
        if self.app.state.redis is None:
            return wish
        try:
            async with guarded(self.app.state.redis, self.app.state.breakers) as client:
                await client.set(self.key, wish.level, ex=seconds)
        except RedisAway:
            log.warning("log_level_not_shared")
            return wish
        shared = replace(wish, shared=True)
        if self.wish is wish:
            self.wish = shared
        return shared

    async def reaches_others(self) -> bool:
        """Whether other processes would hear of a wish now."""
        if self.app.state.redis is None:
            return False
        try:
            async with guarded(self.app.state.redis, self.app.state.breakers) as client:
                return bool(await client.ping())
        except RedisAway:
            return False

    async def _found(self, redis: Redis) -> Wish | None:
        async with guarded(redis, self.app.state.breakers) as client:
            asked = client.pipeline()
            asked.get(self.key)
            asked.pttl(self.key)
            text, left = await asked.execute()
        level = text.decode() if text else ""
        known = next((one for one in get_args(LogLevel) if one == level), None)
        return Wish(level=known, until=time.monotonic() + left / 1000, shared=True) if known and left > 0 else None

    async def look(self) -> None:
        """Take what others have asked for, and forget what is over."""
        if self.sharing:  # else what was asked for before would be found, and taken back
            await asyncio.wait([self.sharing])
        asked, wish = self.wish, self.wish
        if self.app.state.redis is not None:
            try:
                found = await self._found(self.app.state.redis)
                wish = found or (None if wish and wish.shared else wish)
            except RedisAway:
                pass  # what is known holds to its end
        if self.wish is asked:  # else somebody has asked for another one meanwhile
            self.take(wish if wish and wish.until > time.monotonic() else None)


def levels_of(app: FastAPI) -> Levels:
    """This app's, made at first use."""
    if not hasattr(app.state, "log_levels"):
        app.state.log_levels = Levels(app)
    levels: Levels = app.state.log_levels
    return levels


async def change(session: AsyncSession, levels: Levels, *, level: LogLevel, seconds: int) -> None:
    """When this session commits, so not without its record."""
    await emit(session, LogLevelChanged(level=level, seconds=seconds))
    after_commit(session, lambda: levels.ask_for(level, seconds))


async def _look(app: FastAPI) -> None:
    await levels_of(app).look()


lifespan = regularly(_look, seconds=EVERY, failed="log_level_not_read")
