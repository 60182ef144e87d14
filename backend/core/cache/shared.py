"""The cache in Redis, which all processes share. Whatever is asked of it may raise RedisAway.

Each tag has a token there, a random text. An entry holds the tokens as they were *before* its value was computed, and
counts only while they are the same. To invalidate is to delete the token. Who computes next makes a fresh one: a slow
process that stores what it computed from older data stores it in vain, and when Redis evicts a token, or comes back
empty, nothing from before counts again.
"""

import secrets
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import orjson
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline

from backend.core.breakers import Breakers
from backend.core.cache.payload import Packed, Payload, pack, unpack
from backend.core.redis import guarded

TOKEN_MS = 3_600_000  # an entry counts no longer than its tags' tokens, whoever made them


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to compute the value of a key. `tokens`: those of its tags, from before it is computed.

    After `until`, a moment of `time.monotonic()`, another process may have it.
    """

    shared: "Shared"
    key: str
    tokens: list[str]
    until: float

    async def store(self, payload: Payload, *, seconds: float) -> None:
        """Keep the value for so many seconds, and let those go on who waited for it."""
        data = pack(Packed(payload, time.time() + seconds, self.tokens), key=self.key, secret=self.shared.secret)
        async with self.shared.pipeline() as pipe:
            pipe.set(self.shared.entry_name(self.key), data, px=max(1, int(seconds * 1000)))
            self._unlock(pipe)
            await pipe.execute()

    async def give_up(self) -> None:
        """Nothing is going to be stored: let those go on who wait for it."""
        async with self.shared.pipeline() as pipe:
            self._unlock(pipe)
            await pipe.execute()

    def _unlock(self, pipe: Pipeline) -> None:
        if time.monotonic() < self.until:  # else it may be another's lock by now
            pipe.delete(self.shared.lock_name(self.key))


class Shared:
    """`prefix` keeps apps apart that share a Redis; `secret` keeps entries that none of their processes made out."""

    def __init__(self, client: Redis, breakers: Breakers, *, prefix: str, secret: bytes) -> None:
        self.client = client
        self.breakers = breakers
        self.prefix = prefix
        self.secret = secret

    @property
    def channel(self) -> str:
        return f"{self.prefix}:invalidated"

    def entry_name(self, key: str) -> str:
        """Keys may hold what people typed: Redis gets their hash."""
        return f"{self.prefix}:entry:{blake2b(key.encode(), digest_size=20).hexdigest()}"

    def lock_name(self, key: str) -> str:
        return self.entry_name(key) + ":lock"

    def tag_names(self, tags: Iterable[str]) -> list[str]:
        return [f"{self.prefix}:tag:{tag}" for tag in tags]

    @asynccontextmanager
    async def pipeline(self, *, transaction: bool = False) -> AsyncIterator[Pipeline]:
        async with guarded(self.client, self.breakers) as redis, redis.pipeline(transaction=transaction) as pipe:
            yield pipe

    async def fetch(self, key: str, tags: tuple[str, ...]) -> tuple[Packed | None, bool]:
        """What is stored and still counts; and whether somebody computes it now."""
        names = (self.entry_name(key), self.lock_name(key), *self.tag_names(tags))
        async with guarded(self.client, self.breakers) as redis:
            data, locked, *tokens = await redis.mget(names)
        packed = unpack(data, key=key, secret=self.secret) if isinstance(data, bytes) else None
        if packed is None or not all(packed.tokens) or packed.tokens != _texts(tokens) or packed.seconds_left <= 0:
            return None, locked is not None
        return packed, False

    async def lease(self, key: str, tags: tuple[str, ...], seconds: float, lock_seconds: float) -> Lease | None:
        """Ask for this before a value for so many seconds is computed; None when somebody else computes it."""
        until = time.monotonic() + lock_seconds
        async with self.pipeline() as pipe:
            for name in self.tag_names(tags):
                pipe.set(name, secrets.token_urlsafe(9), nx=True, px=max(TOKEN_MS, int(2000 * seconds)))
            pipe.mget(self.tag_names(tags))
            pipe.set(self.lock_name(key), b"1", nx=True, px=max(1, int(lock_seconds * 1000)))
            *_, tokens, leads = await pipe.execute()
        return Lease(self, key, _texts(tokens), until) if leads else None

    async def drop(self, key: str) -> None:
        async with guarded(self.client, self.breakers) as redis:
            await redis.delete(self.entry_name(key))

    async def invalidate(self, tags: Iterable[str], *, sender: str) -> None:
        """Let nothing with these tags count any more, and tell all processes so."""
        tags = list(tags)
        async with self.pipeline(transaction=True) as pipe:
            pipe.delete(*self.tag_names(tags))
            pipe.publish(self.channel, orjson.dumps((sender, tags)))
            await pipe.execute()


def _texts(values: Iterable[Any]) -> list[str]:
    """A missing token is an empty one, with which nothing counts."""
    return [value.decode() if isinstance(value, bytes) else "" for value in values]
