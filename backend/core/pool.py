"""A connection pool in which who waits longest is served first.

SQLAlchemy's own lets newcomers take what has been given back before those who wait for it have been woken: under load
some wait for hundreds of times as long as others, and being woken in vain costs more than the statement. Who waits for
a connection that could not be opened would wait to the end, too, though there is room for another.
"""

import asyncio
from collections import deque
from typing import Literal, TypeVar

from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util.concurrency import await_only
from sqlalchemy.util.queue import Empty, Full, QueueCommon

T = TypeVar("T")


class FairQueue(QueueCommon[T]):
    """What is put in goes to who waits longest, if anybody does: it is not there for others meanwhile."""

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        self.maxsize, self.use_lifo = maxsize, use_lifo
        self._items: deque[T] = deque()
        self._waiting: deque[asyncio.Future[T]] = deque()

    def empty(self) -> bool:
        return not self._items

    def full(self) -> bool:
        return 0 < self.maxsize <= len(self._items)

    def qsize(self) -> int:
        return len(self._items)

    def hand_over(self, item: T) -> bool:
        """Give it to who waits longest; False when nobody does."""
        while self._waiting:
            oldest = self._waiting.popleft()
            if not oldest.done():
                oldest.set_result(item)
                return True
        return False

    def put_nowait(self, item: T) -> None:
        if not self.hand_over(item):
            if self.full():
                raise Full
            self._items.append(item)

    def put(self, item: T, block: bool = True, timeout: float | None = None) -> None:
        self.put_nowait(item)  # a pool never waits for room

    def get_nowait(self) -> T:
        if not self._items:
            raise Empty
        return self._items.pop() if self.use_lifo else self._items.popleft()

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        if block and not self._items:
            return await_only(self._wait(timeout))
        return self.get_nowait()

    async def _wait(self, seconds: float | None) -> T:
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[T] = loop.create_future()
        self._waiting.append(mine)
        alarm = loop.call_later(seconds, mine.cancel) if seconds is not None else None
        try:
            return await mine
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if mine.cancelled() and task and not task.cancelling():
                raise Empty from None
            if mine.done() and not mine.cancelled() and not self.hand_over(mine.result()):
                self._items.append(mine.result())  # one too many, perhaps, but not lost
            raise
        finally:
            if alarm:
                alarm.cancel()


class FairPool(AsyncAdaptedQueuePool):
    """What engines have as their pool."""

    _queue_class = FairQueue[ConnectionPoolEntry]
    _pool: FairQueue[ConnectionPoolEntry]

    def _dec_overflow(self) -> Literal[True]:
        """The place of a connection that could not be opened, or was closed, goes to who waits: they open another."""
        return True if self._pool.hand_over(_ConnectionRecord(self, connect=False)) else super()._dec_overflow()
