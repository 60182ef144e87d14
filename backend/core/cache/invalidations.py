"""What one process invalidates, all of them hear, through Redis: the way out, and the way in.

What could not be sent yet is remembered and sent as soon as Redis is back; until then this process reads nothing with
those tags from there. While the way in is broken, nobody knows what was missed: entries in this process then live for
`CACHE__AWAY_SECONDS` only, and all are dropped when it works again.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import orjson
import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from backend.core.cache.local import EVERYTHING
from backend.core.cache.shared import Shared
from backend.core.redis import RedisAway

log = structlog.get_logger(__name__)

MOST_UNSENT = 1000  # tags; more of them are remembered as everything
SILENCE = 1.0  # seconds without a message, after which a sign of life is asked for, and has as long to come
PAUSE = 0.3  # seconds between tries
TOGETHER = 0.01  # seconds: what comes sooner after a message goes with the next, or each write would cost one


class Invalidations:
    """`heard` is called with the tags that others invalidated; `changed` when the way in broke or works again."""

    def __init__(
        self,
        shared: Shared,
        url: str,
        *,
        timeout: float,
        heard: Callable[[list[str]], object],
        changed: Callable[[bool], object],
    ) -> None:
        self.shared = shared
        self.listening = False
        self.unsent: dict[str, object] = {}
        self._sender = secrets.token_hex(8)
        self._url = url
        self._timeout = timeout
        self._heard = heard
        self._changed = changed
        self._wake = asyncio.Event()

    def send(self, tags: Iterable[str]) -> None:
        """In the background, for as long as it takes."""
        self.unsent |= {tag: object() for tag in tags}
        if len(self.unsent) > MOST_UNSENT:
            self.unsent = {EVERYTHING: object()}
        self._wake.set()

    def owes(self, tags: Iterable[str]) -> bool:
        """Whether one of them is invalid, and Redis does not know it yet."""
        return not self.unsent.keys().isdisjoint(tags)

    async def flush(self) -> None:
        """RedisAway when it cannot be sent now."""
        while self.unsent:
            batch = dict(self.unsent)
            await self.shared.invalidate(batch, sender=self._sender)
            for tag, mark in batch.items():
                if self.unsent.get(tag) is mark:  # else it was invalidated again while this was under way
                    del self.unsent[tag]

    async def _keep_sending(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.flush()
                await asyncio.sleep(TOGETHER)
            except Exception as exc:  # this task must not end: what is not sent is looked up past Redis
                if not isinstance(exc, RedisAway):
                    log.exception("cache_invalidation_not_sent")
                await asyncio.sleep(PAUSE)
                self._wake.set()

    @asynccontextmanager
    async def _subscribed(self) -> AsyncIterator[PubSub]:
        """A client of its own: a subscription waits for ever, which others must not, and must not come back unseen."""
        client = Redis.from_url(
            self._url, socket_timeout=None, socket_connect_timeout=self._timeout, retry=Retry(NoBackoff(), 0)
        )
        async with AsyncExitStack() as stack:
            stack.push_async_callback(client.aclose)
            pubsub = client.pubsub()
            stack.push_async_callback(pubsub.aclose)
            patience = max(self._timeout, SILENCE)
            async with asyncio.timeout(patience):  # without `socket_timeout`, the handshake would wait for ever
                await pubsub.subscribe(self.shared.channel)
                confirmed = await pubsub.get_message(timeout=patience)
            if confirmed is None:
                raise TimeoutError
            yield pubsub

    async def _listen(self) -> None:
        async with self._subscribed() as pubsub:
            self._set(listening=True)
            asked = False
            while True:
                message = await pubsub.get_message(timeout=SILENCE)
                if message is None:
                    if asked:
                        raise TimeoutError
                    await pubsub.ping()
                asked = message is None
                if message and message["type"] == "message":
                    self._take(message["data"])

    def _take(self, data: bytes) -> None:
        try:
            sender, tags = orjson.loads(data)
            if sender != self._sender:
                self._heard([str(tag) for tag in tags])
        except (ValueError, TypeError):
            self._heard([EVERYTHING])

    def _set(self, *, listening: bool) -> None:
        if listening != self.listening:
            self.listening = listening
            log.info("cache_subscription", listening=listening)
            self._changed(listening)

    async def _keep_listening(self) -> None:
        while True:
            try:
                await self._listen()
            except (RedisError, OSError, TimeoutError):
                pass  # it is away
            except Exception:  # this task must not end either
                log.exception("cache_subscription_failed")
            self._set(listening=False)
            await asyncio.sleep(PAUSE * random.uniform(0.5, 1.5))  # noqa: S311  so that processes drift apart

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self._keep_sending()), asyncio.create_task(self._keep_listening())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._set(listening=False)
            with suppress(RedisAway, TimeoutError):
                async with asyncio.timeout(2 * self._timeout):
                    await self.flush()
