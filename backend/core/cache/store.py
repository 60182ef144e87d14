"""The cache of one app: this process's memory in front of Redis, and one computation per key at a time."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from redis.asyncio import Redis
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.breakers import Breakers
from backend.core.cache.invalidations import Invalidations
from backend.core.cache.local import EVERYTHING, Counts, Local
from backend.core.cache.payload import Packed, Payload
from backend.core.cache.shared import Lease, Shared
from backend.core.commits import after_commit
from backend.core.config import Settings
from backend.core.redis import RedisAway

POLL = 0.02  # seconds between looks at what another process computes

Compute = Callable[[], Awaitable[Payload]]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is looked for under a key, and how it is to be kept."""

    key: str
    tags: tuple[str, ...]
    seconds: float
    namespace: str


@dataclass(eq=False)
class Flight:
    """A computation under way. It is in the cache's table for as long as nothing was invalidated that it rests on.

    `until`: the moment of `time.monotonic()` at which one of those who wait computes it, too. `at_work`: how many do.
    """

    tags: frozenset[str]
    until: float = 0.0
    at_work: int = 0
    abandoned: bool = False  # all who computed it were cancelled
    result: asyncio.Future[Payload | None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Cache:
    """`app.state.cache`. Routes and services use `cached`, `cached_result` and `invalidate` instead of this."""

    def __init__(self, settings: Settings, client: Redis | None, breakers: Breakers, *, vary: Iterable[str]) -> None:
        self.settings = settings.cache
        self.vary = ", ".join(vary)
        self.local = Local(self.settings.max_bytes, self.settings.max_entry_bytes)
        self.shared: Shared | None = None
        self.invalidations: Invalidations | None = None
        self.listeners: list[Callable[[Iterable[str]], object]] = [self.forget]  # to what other processes say
        self._flights: dict[str, Flight] = {}
        if client is not None:
            (secret, *_) = settings.security.keys_for("cache")
            self.shared = Shared(client, breakers, prefix=settings.redis.prefix, secret=secret)
            self.invalidations = Invalidations(
                self.shared,
                settings.redis.url,
                timeout=settings.redis.timeout,
                heard=self._heard,
                changed=self._listening_changed,
            )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hear what other processes invalidate, and tell them."""
        if self.invalidations is None:
            yield
            return
        async with self.invalidations.running():
            yield

    # --- invalidation

    def invalidate(self, tags: Iterable[str]) -> int:
        """Forget what has one of these tags, here at once, elsewhere as soon as Redis can tell. How many were here."""
        tags = tuple(tags)
        if self.invalidations is not None:
            self.invalidations.send(tags)
        return self.forget(tags)

    def clear(self) -> int:
        """Forget everything."""
        return self.invalidate([EVERYTHING])

    def forget(self, tags: Iterable[str]) -> int:
        """In this process only; what is being computed now from older data will not be kept, nor joined."""
        tags = frozenset(tags)
        for key, flight in list(self._flights.items()):
            if not tags.isdisjoint(flight.tags):
                del self._flights[key]
        return self.local.drop_tagged(tags)

    def _heard(self, tags: list[str]) -> None:
        for listener in self.listeners:
            listener(tags)

    def _listening_changed(self, listening: bool) -> None:
        if listening:
            self._heard([EVERYTHING])
        else:
            self.local.shorten(self.settings.away_seconds)

    # --- look-up

    async def get(self, wanted: Wanted, compute: Compute) -> Payload:
        """What is cached; else what `compute` returns. Exceptions pass through, and nothing is cached then.

        No transaction may be open now that `compute` will read in: it would show data from before this call.
        """
        bound = self.settings.flight_seconds
        while (payload := self.local.get(wanted.key)) is None:
            flight = self._flights.get(wanted.key)
            if flight is None:
                flight = self._flights[wanted.key] = Flight(frozenset((*wanted.tags, EVERYTHING)))
                return await self._lead(wanted, flight, compute)
            left = flight.until - time.monotonic()
            await asyncio.wait({flight.result}, timeout=min(max(0, left), bound))
            if flight.result.done():
                if (payload := flight.result.result()) is not None:
                    self.local.counts_of(wanted.namespace).hits += 1
                    return payload
                if not flight.abandoned:
                    return await self._computed(wanted, compute)
            elif time.monotonic() >= flight.until and self._flights.get(wanted.key) is flight:
                return await self._lead(wanted, flight, compute)
        return payload

    async def _computed(self, wanted: Wanted, compute: Compute) -> Payload:
        self.local.counts_of(wanted.namespace).misses += 1
        return await compute()

    async def _lead(self, wanted: Wanted, flight: Flight, compute: Compute) -> Payload:
        """Get the value from Redis or compute it, for all who wait for it: alone, or where that takes others long."""
        flight.at_work += 1
        flight.until = time.monotonic() + 2 * self.settings.flight_seconds  # another process may be at it first
        try:
            payload = await self._fill(wanted, flight, compute)
        except asyncio.CancelledError:
            flight.at_work -= 1
            if not flight.at_work:
                flight.abandoned = True
                self._end(wanted, flight, None)
            raise
        except BaseException:
            self._end(wanted, flight, None)
            raise
        self._end(wanted, flight, payload if payload.keep else None)
        return payload

    def _end(self, wanted: Wanted, flight: Flight, payload: Payload | None) -> None:
        if not flight.result.done():
            flight.result.set_result(payload)
        if self._flights.get(wanted.key) is flight:
            del self._flights[wanted.key]

    async def _fill(self, wanted: Wanted, flight: Flight, compute: Compute) -> Payload:
        found = await self._ask_shared(wanted, (*wanted.tags, EVERYTHING))
        if isinstance(found, Packed):
            self.local.counts_of(wanted.namespace).shared_hits += 1
            self._keep(wanted, flight, found.payload, min(found.seconds_left, wanted.seconds))
            return found.payload
        started, kept = time.monotonic(), False
        flight.until = started + self.settings.flight_seconds
        seconds = wanted.seconds * random.uniform(0.9, 1)  # noqa: S311  so that entries do not all expire at once
        try:
            payload = await self._computed(wanted, compute)
            seconds -= time.monotonic() - started
            kept = self._keep(wanted, flight, payload, seconds)
        finally:
            if found is not None and not kept:
                await self._quietly(found.give_up())
        if found is not None and kept:
            await self._quietly(found.store(payload, seconds=seconds))
        return payload

    async def _ask_shared(self, wanted: Wanted, tags: tuple[str, ...]) -> Packed | Lease | None:
        """What Redis has; or the right to compute it; or None: compute it without Redis."""
        if self.shared is None or self.invalidations is None or self.invalidations.owes(tags):
            return None
        bound = self.settings.flight_seconds
        until = time.monotonic() + bound
        with suppress(RedisAway):
            while time.monotonic() < until:
                packed, locked = await self.shared.fetch(wanted.key, tags)
                if packed is not None:
                    return packed
                if not locked and (lease := await self.shared.lease(wanted.key, tags, wanted.seconds, bound)):
                    return lease
                await asyncio.sleep(POLL)
        return None

    @staticmethod
    async def _quietly(call: Awaitable[None]) -> None:
        with suppress(RedisAway):
            await call

    def _keep(self, wanted: Wanted, flight: Flight, payload: Payload, seconds: float) -> bool:
        """Whether it may be kept: something may have been invalidated since the flight began."""
        if not payload.keep or seconds <= 0 or self._flights.get(wanted.key) is not flight:
            return False
        self.keep(wanted.key, payload, seconds=seconds, tags=flight.tags, namespace=wanted.namespace)
        return payload.size <= self.settings.max_entry_bytes

    def keep(self, key: str, payload: Payload, *, seconds: float, tags: Iterable[str], namespace: str) -> None:
        """In this process, for as long as it is good here without a look into Redis."""
        self.local.put(key, payload, seconds=min(seconds, self._local_seconds), tags=tags, namespace=namespace)

    @property
    def _local_seconds(self) -> float:
        if self.invalidations is None:
            return float("inf")
        return self.settings.local_seconds if self.invalidations.listening else self.settings.away_seconds

    def statistics(self) -> dict[str, Counts]:
        """By namespace; of this process."""
        return dict(self.local.counts)


def invalidate(session: AsyncSession, *tags: str) -> None:
    """When this session commits: what is cached with one of these tags is outdated."""
    cache: Cache | None = session.info.get("cache")
    if cache is not None:
        after_commit(session, lambda: cache.invalidate(tags), if_unsure=True)
