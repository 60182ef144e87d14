"""A connection pool in which who waits longest is served first.

SQLAlchemy's own lets newcomers take what has been given back before those who wait for it have been woken: under load
some wait for hundreds of times as long as others, and being woken in vain costs more than the statement.
"""

import asyncio
from collections import deque
from typing import TypeVar

from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.util.concurrency import await_only
from sqlalchemy.util.queue import AsyncAdaptedQueue, Empty

T = TypeVar("T")


class FairQueue(AsyncAdaptedQueue[T]):
    """What is put in goes to who waits longest, if anybody does: it is not there for others meanwhile."""

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        super().__init__(maxsize, use_lifo)
        self._waiting: deque[asyncio.Future[T]] = deque()

    def put_nowait(self, item: T) -> None:
        while self._waiting:
            oldest = self._waiting.popleft()
            if not oldest.done():
                oldest.set_result(item)
                return
        super().put_nowait(item)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        try:
            return self.get_nowait()
        except Empty:
            if not block:
                raise
        return await_only(self._wait(timeout))

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
            if mine.done() and not mine.cancelled():
                self.put_nowait(mine.result())  # the one who waits next has it
            raise
        finally:
            if alarm:
                alarm.cancel()


class FairPool(AsyncAdaptedQueuePool):
    """What engines have as their pool."""

    _queue_class = FairQueue[ConnectionPoolEntry]
