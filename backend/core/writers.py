"""Who wrote lately: their reads go to the primary, or they would miss what they have just done.

This process remembers, and Redis, where there is one, for all others. Without it several processes know only their own.
"""

import time
from contextlib import suppress

from redis.asyncio import Redis
from sqlalchemy.util.concurrency import await_only

from backend.core.breakers import Breakers
from backend.core.redis import RedisAway, guarded


class Writers:
    """People, each for some seconds after a write. Called within the greenlet in which SQLAlchemy runs."""

    def __init__(self, seconds: float, redis: Redis | None, breakers: Breakers, *, prefix: str) -> None:
        self._seconds = seconds
        self._prefix = prefix
        self._redis, self._breakers = redis, breakers
        self._until: dict[int, float] = {}  # `time.monotonic()` by person, the earliest first

    def note(self, user_id: int) -> None:
        """This person's write is committed."""
        now = time.monotonic()
        self._until.pop(user_id, None)
        self._until[user_id] = now + self._seconds
        while self._until[first := next(iter(self._until))] <= now:
            del self._until[first]
        if self._redis is not None:
            with suppress(RedisAway):  # then the others cannot ask either, and `lately` says yes
                await_only(self._mark(self._redis, user_id))

    def lately(self, user_id: int) -> bool:
        """Whether this person may have written in the last seconds, here or in another process."""
        if time.monotonic() < self._until.get(user_id, 0):
            return True
        if self._redis is None:
            return False
        with suppress(RedisAway):
            return bool(await_only(self._marked(self._redis, user_id)))
        return True  # nobody can say

    async def _mark(self, client: Redis, user_id: int) -> None:
        async with guarded(client, self._breakers) as redis:
            await redis.set(self._key(user_id), b"", px=int(self._seconds * 1000))

    async def _marked(self, client: Redis, user_id: int) -> int:
        async with guarded(client, self._breakers) as redis:
            return int(await redis.exists(self._key(user_id)))

    def _key(self, user_id: int) -> str:
        return f"{self._prefix}:wrote:{user_id}"
