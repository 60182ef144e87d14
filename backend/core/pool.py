"""A connection pool in which who waits longest is served first, and which lends connections without a greenlet.

SQLAlchemy's own lets newcomers take what has been given back before those who wait for it have been woken: under load
some wait for hundreds of times as long as others, and being woken in vain costs more than the statement. Who waits for
a connection that could not be opened would wait to the end, too, though there is room for another.

A connection in SQLAlchemy's way costs more than a short statement on it: `lend` is for those who speak to the driver.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Self, TypeVar, cast
from weakref import WeakKeyDictionary

from fastapi import FastAPI
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.pool.base import _ConnectionRecord
from sqlalchemy.util.concurrency import await_only, greenlet_spawn
from sqlalchemy.util.queue import Empty, Full, QueueCommon

from backend.core.figures import Figure

T = TypeVar("T")

FRESH = 1.0  # seconds for which a connection that worked is taken to work


class FairQueue(QueueCommon[T]):
    """What is put in goes to who waits longest, if anybody does: it is not there for others meanwhile."""

    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        self.maxsize, self.use_lifo = maxsize, use_lifo
        self._items: deque[T] = deque()
        self._waiting: deque[asyncio.Future[T]] = deque()
        self.waits, self.waited = 0, 0.0  # so far: how often somebody had to wait, and for how many seconds in all

    @property
    def waiting(self) -> int:
        """How many wait now; who has given up is still in the row."""
        return sum(not one.done() for one in self._waiting)

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

    def put_first(self, item: T) -> None:
        """It is what `get_nowait` returns, if that is asked at once."""
        self._items.appendleft(item)

    def get(self, block: bool = True, timeout: float | None = None) -> T:
        if block and not self._items:
            return await_only(self.wait(timeout))
        return self.get_nowait()

    async def wait(self, seconds: float | None) -> T:
        """What somebody puts in; Empty when nobody does in time."""
        loop, began = asyncio.get_running_loop(), time.perf_counter()
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
            self.waits += 1
            self.waited += time.perf_counter() - began
            if alarm:
                alarm.cancel()


class FairPool(AsyncAdaptedQueuePool):
    """What engines have as their pool."""

    _queue_class = FairQueue[ConnectionPoolEntry]
    _pool: FairQueue[ConnectionPoolEntry]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # `time.monotonic()` of its last use, by the driver's connection
        self.worked: WeakKeyDictionary[Any, float] = WeakKeyDictionary()

    async def lend(self) -> ConnectionPoolEntry | None:
        """A connection that worked a moment ago; None when SQLAlchemy has to open one, or to look whether it works.

        To be given back by `take_back`, or by `drop`. sqlalchemy.exc.TimeoutError when none becomes free in time.
        """
        queue = self._pool
        if not queue.empty():
            entry = queue.get_nowait()
        elif self._overflow < self._max_overflow:
            return None
        else:
            try:
                entry = await queue.wait(self._timeout)
            except Empty:
                raise PoolTimeout(f"all {self.limit} connections were in use for {self._timeout} s") from None
        if self._works(entry):
            return entry
        queue.put_first(entry)
        return None

    def _works(self, entry: ConnectionPoolEntry) -> bool:
        if cast("_ConnectionRecord", entry)._is_hard_or_soft_invalidated():  # noqa: SLF001
            return False
        young = self._recycle < 0 or time.time() - cast("_ConnectionRecord", entry).starttime < self._recycle
        return young and self.is_fresh(entry.driver_connection)

    def is_fresh(self, connection: Any) -> bool:
        """Whether the driver's connection has worked within the last second: no busy one is pinged."""
        return time.monotonic() - self.worked.get(connection, -FRESH) < FRESH

    def note_use(self, connection: Any) -> None:
        """The driver's connection works."""
        self.worked[connection] = time.monotonic()

    async def take_back(self, entry: ConnectionPoolEntry) -> None:
        """One that was lent, with nothing left to roll back."""
        self.note_use(entry.driver_connection)
        if self._pool.hand_over(entry):
            return
        if self._pool.full():  # one too many: it is closed
            await greenlet_spawn(self._do_return_conn, entry)
        else:
            self._pool.put_nowait(entry)

    def drop(self, entry: ConnectionPoolEntry, why: BaseException) -> None:
        """One that was lent, and of which nobody knows what is still to come on it: another takes its place."""
        entry.invalidate(why)
        self._do_return_conn(entry)

    @contextmanager
    def hand_to_next(self, entry: ConnectionPoolEntry) -> Iterator[None]:
        """One that was lent, as it is, for SQLAlchemy, which is asked for a connection inside.

        It would open it anew, and lose the transaction, when it has become too old or another one was lost meanwhile.
        """
        record = cast("_ConnectionRecord", entry)
        self.note_use(entry.driver_connection)
        self._pool.put_first(entry)
        began, record.starttime = record.starttime, math.inf
        try:
            yield
        finally:
            record.starttime = began

    def _dec_overflow(self) -> Literal[True]:
        """The place of a connection that could not be opened, or was closed, goes to who waits: they open another."""
        return True if self._pool.hand_over(_ConnectionRecord(self, connect=False)) else super()._dec_overflow()

    def recreate(self) -> Self:
        """What an engine that was disposed of goes on with: it has waited before."""
        fresh = cast("Self", super().recreate())
        fresh.queue.waits, fresh.queue.waited = self.queue.waits, self.queue.waited
        fresh.worked = self.worked
        return fresh

    @property
    def limit(self) -> int:
        return self.size() + self._max_overflow

    @property
    def queue(self) -> FairQueue[ConnectionPoolEntry]:
        return self._pool


def _of_pool(read: Callable[[FairPool], T]) -> Callable[[FastAPI], T]:
    """Of the app's own database; its replicas have pools of their own."""
    return lambda app: read(cast("FairPool", app.state.database.engine.pool))


FIGURES = (
    Figure(
        name="database_connections",
        help="Connections to the database that are in use, and those that are kept open for the next who needs one.",
        labels=("state",),
        read=_of_pool(lambda pool: {("in_use",): pool.checkedout(), ("idle",): pool.checkedin()}),
    ),
    Figure(
        name="database_connections_limit",
        help="Connections that the processes may have at once: DATABASE__POOL_SIZE and DATABASE__MAX_OVERFLOW, summed.",
        read=_of_pool(lambda pool: pool.limit),
    ),
    Figure(
        name="database_connections_waiting",
        help="Who waits for a connection because all are in use.",
        read=_of_pool(lambda pool: pool.queue.waiting),
    ),
    Figure(
        name="database_connection_waits",
        help="How often somebody had to wait for a connection.",
        kind="counter",
        read=_of_pool(lambda pool: pool.queue.waits),
    ),
    Figure(
        name="database_connection_wait_seconds",
        help="For how long these have waited, together.",
        kind="counter",
        read=_of_pool(lambda pool: pool.queue.waited),
    ),
)
