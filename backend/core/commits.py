"""What the app's sessions refuse to do, and what waits for their commit: `after_commit(session, action)`.

Whether a COMMIT has been carried out is not known when the connection broke before its answer came. What must not be
missing then (a cache would stay outdated) is done `if_unsure`; what must not be untrue (a mail says that something has
happened) is not. That a caller does not wait any more makes nothing unsure: the COMMIT is carried through without them.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ClauseElement, Connection, Engine, TextClause, event
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.orm import SessionTransaction
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.util.concurrency import greenlet_spawn
from sqlmodel import Session as SyncSession
from sqlmodel.ext.asyncio.session import AsyncSession

OVER = "what was stored by store_last() was to be the last that is asked of this session"
READS_ONLY = "this session only reads: no GET may write, no ReadSession, no `session(reading=True)`, no console's own"
WRITES = re.compile(r"\s*(insert|update|delete|merge|replace|truncate)\b", re.IGNORECASE)  # SQL by hand
PATIENCE = 5.0  # seconds for a COMMIT that nobody waits for any more, or of which nobody knows
_under_way: set[asyncio.Task[Any]] = set()  # or they might be collected


class GuardedSession(OrmSession):
    """Refuses to write when it is for reading; whatever becomes of its COMMIT, caches are told."""

    def get_bind(self, mapper: Any = None, *, clause: ClauseElement | None = None, **more: Any) -> Engine | Connection:
        """Each statement passes by here before it is sent. For a listener, SQLAlchemy would prepare each twice."""
        if self.info.get("over"):
            raise RuntimeError(OVER)
        if self.info.get("reading") and (
            isinstance(clause, UpdateBase) or (isinstance(clause, TextClause) and WRITES.match(clause.text))
        ):
            raise RuntimeError(READS_ONLY)
        return super().get_bind(mapper, clause=clause, **more)

    def commit(self) -> None:
        try:
            super().commit()
        except BaseException:  # cancelled, too
            do_what_waited(self, unsure=True)
            raise


class RequestSession(GuardedSession, SyncSession):
    """What is inside of `CommittingSession`."""


class ConsoleSession(GuardedSession):
    """What SQLAdmin opens by itself: it only reads."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.info["reading"] = True


class CommittingSession(AsyncSession):
    """A COMMIT for which something waits is carried through, though the request has been given up meanwhile."""

    sync_session_class = RequestSession

    async def commit(self) -> None:
        if self.new or self.dirty or self.deleted:
            await self.flush()  # this may still be given up
        if self.info.get("after_commit"):
            await carried_through(super().commit())
        else:
            await super().commit()


async def carried_through(commit: Coroutine[Any, Any, None]) -> None:
    """It ends before its caller does, even if that is cancelled meanwhile."""
    committing = asyncio.create_task(commit)
    try:
        await asyncio.shield(committing)
    except asyncio.CancelledError:
        asyncio.get_running_loop().call_later(PATIENCE, committing.cancel)
        while not committing.done():
            with suppress(asyncio.CancelledError):  # cancelled once more, and it goes on all the same
                await asyncio.wait({committing})
        raise


class LateSession(CommittingSession):
    """Opens when something asks more of it than what can be asked of `engine` itself; None: it must open."""

    def __init__(self, engine: Engine | None, options: Callable[[], dict[str, Any]]) -> None:
        self.engine = engine
        self._options = options

    @property
    def opened(self) -> bool:
        return "sync_session" in self.__dict__

    def __getattr__(self, name: str) -> Any:
        if self.opened:
            raise AttributeError(name)
        self.open()
        return getattr(self, name)

    def open(self) -> None:
        self.engine = None
        super().__init__(**self._options())


class ReadingSession(LateSession):
    """For routes that only read: single statements are asked of the engine."""


@event.listens_for(OrmSession, "before_flush")
def _refuse_to_write(session: OrmSession, *_unused: object) -> None:
    if session.info.get("reading"):
        raise RuntimeError(READS_ONLY)


# --- what waits ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Waiting:
    """Something to do after the commit, unless its savepoint, or one around that, is rolled back."""

    action: Callable[[], object]
    if_unsure: bool
    savepoint: SessionTransaction | None


def after_commit(session: AsyncSession | OrmSession, action: Callable[[], object], *, if_unsure: bool = False) -> None:
    """Do something quick once the session has committed, and not at all when it rolls back.

    `if_unsure`: also when nobody knows whether it has committed. It must do no harm then if it has not.
    """
    if isinstance(session, LateSession) and not session.opened:
        savepoint = None
    else:
        inner = session if isinstance(session, OrmSession) else session.sync_session
        savepoint = inner.get_nested_transaction()
    waiting = Waiting(action, if_unsure, savepoint)
    session.info.setdefault("after_commit", []).append(waiting)


def do_what_waited(session: AsyncSession | OrmSession, *, unsure: bool = False) -> None:
    """`unsure`: only what is to be done even then; and once more, as the database may still be at the COMMIT."""
    with ExitStack() as all_of_them:  # whatever becomes of one
        for one in reversed(session.info.pop("after_commit", [])):
            if one.if_unsure or not unsure:
                all_of_them.callback(one.action)
            if one.if_unsure and unsure:
                with suppress(RuntimeError):  # no event loop: a script, or a thread
                    asyncio.get_running_loop().call_later(PATIENCE, _once_more, one.action)


def _once_more(action: Callable[[], object]) -> None:
    task = asyncio.get_running_loop().create_task(greenlet_spawn(action))  # it may wait for Redis, as at a commit
    _under_way.add(task)
    task.add_done_callback(_under_way.discard)


def _within(one: SessionTransaction | None, other: SessionTransaction | None) -> bool:
    """Of savepoints; None is the transaction, around them all."""
    while one is not None and one is not other:
        one = one.parent
    return one is other


@event.listens_for(OrmSession, "after_flush")
def _note_write(session: OrmSession, _context: object) -> None:
    session.info.setdefault("wrote", (session.get_nested_transaction(),))  # whoever takes the first back takes all


@event.listens_for(OrmSession, "after_commit")
def _committed(session: OrmSession) -> None:
    if not session.in_nested_transaction():  # else a savepoint is released
        session.info.pop("wrote", None)
        do_what_waited(session)


@event.listens_for(OrmSession, "after_rollback")
def _rolled_back(session: OrmSession) -> None:
    info, gone = session.info, session.get_nested_transaction()
    info["after_commit"] = [one for one in info.get("after_commit", ()) if not _within(one.savepoint, gone)]
    if "wrote" in info and _within(info["wrote"][0], gone):
        del info["wrote"]
