"""The database: one async engine per app, a session per request committed once at its edge, a sync one for scripts."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from sqlalchemy import BigInteger, Engine, create_engine, event
from sqlalchemy.engine import URL, Connection, Dialect, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.ext.asyncio import AsyncSession as PlainAsyncSession
from sqlalchemy.types import TypeDecorator
from sqlmodel import Session as SyncSession
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from backend.core import statements
from backend.core.commits import CommittingSession, ConsoleSession, ReadingSession, RequestSession
from backend.core.config import BadSetting, DatabaseSettings
from backend.core.ping import ping_briefly
from backend.core.pool import FairPool
from backend.core.writing_session import WritingSession

T = TypeVar("T")
U = TypeVar("U")
V = TypeVar("V")

MAX_ID = 2**31 - 1  # integer keys are 32 bits wide on all three databases

ASYNC_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "mysql": "mysql+aiomysql"}
SYNC_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
# How each driver calls the longest wait for a connection and for an answer, in seconds.
TIMEOUT_ARGUMENTS = {"postgresql": ("timeout", "command_timeout"), "mysql": ("connect_timeout", "")}
FAMILIES = {"postgres": "postgresql", "mariadb": "mysql"}
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110 §9.2.1

# Stable names, so that a migration can drop what another one made.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


def family(url: str | URL) -> str:
    """`sqlite`, `postgresql` or `mysql`, whatever driver the URL names. ValueError for anything else."""
    name = make_url(url).get_backend_name()
    name = FAMILIES.get(name, name)
    if name not in ASYNC_DRIVERS:
        raise BadSetting(f"DATABASE__URL names {name!r}; SQLite, PostgreSQL and MySQL/MariaDB are supported")
    return name


def async_url(url: str) -> URL:
    """The URL as people and platforms write it → the one for the async driver."""
    parsed = make_url(url).set(drivername=ASYNC_DRIVERS[family(url)])
    if parsed.drivername == "postgresql+asyncpg":  # libpq's spellings, which asyncpg does not know
        query = dict(parsed.query)
        if "sslmode" in query:
            query["ssl"] = query.pop("sslmode")
        for unknown in ("channel_binding", "connect_timeout"):
            query.pop(unknown, None)
        parsed = parsed.set(query=query)
    return _utf8(parsed)


def sync_url(url: str) -> URL:
    """The same URL for the sync driver, for migrations, scripts and notebooks."""
    return _utf8(make_url(url).set(drivername=SYNC_DRIVERS[family(url)]))


def _utf8(url: URL) -> URL:
    return url.update_query_dict({"charset": "utf8mb4"}) if url.get_backend_name() == "mysql" else url


def is_memory(url: URL) -> bool:
    """Whether the URL is an in-memory SQLite database, which lives and dies with its one connection."""
    return url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:")


def _prepare_sqlite(engine: Engine, busy_timeout: float) -> None:
    """WAL, foreign keys, a busy timeout, and transactions that SQLAlchemy begins (the driver's own break savepoints).

    A transaction that reads first and writes later fails at once when another wrote in between, whatever the timeout;
    so transactions take the write lock at their start, unless the session was asked for reading only.
    """

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.execute(f"PRAGMA busy_timeout={int(busy_timeout * 1000)}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        reading = connection.get_execution_options().get("reading", False)
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")


def _let_go_of_sqlite(engine: Engine) -> None:
    """Whoever waited for a statement was cancelled: its thread drops it, and with it the write lock.

    Without this it would finish the statement for nobody, and the lock would stay until the garbage collector comes by:
    SQLite closes a connection only when nothing refers to its statements any more, and an exception does.
    """

    @event.listens_for(engine, "invalidate")
    def interrupt(connection: Any, _record: Any, _cause: Any) -> None:
        driver = connection.driver_connection
        with suppress(ValueError):  # it is closed already
            sqlite = driver._conn  # noqa: SLF001  SQLAlchemy's dialect uses both names, too
            sqlite.interrupt()
            driver._tx.put_nowait((None, sqlite.rollback))  # noqa: SLF001  what the thread does next


def _a_missing_socket_is_an_outage(engine: Engine) -> None:
    """A PostgreSQL that is stopped takes its Unix socket along: the driver then says that a file is missing."""

    @event.listens_for(engine, "do_connect")
    def connect(dialect: Dialect, _record: Any, arguments: Any, options: Any) -> Any:
        try:
            return dialect.connect(*arguments, **options)
        except FileNotFoundError as missing:
            raise ConnectionRefusedError("PostgreSQL's socket is not there") from missing


def _make_folder(url: URL) -> None:
    if url.get_backend_name() == "sqlite" and not is_memory(url):
        folder = Path(str(url.database)).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise BadSetting(f"DATABASE__URL names a folder that cannot be made: {folder} ({exc.strerror})") from exc


def new_engine(url: URL, settings: DatabaseSettings, *, always_ping: bool = False) -> AsyncEngine:
    """An async engine with a pool of its own. It connects at first use.

    `always_ping`: also a connection that worked a moment ago, where another server can take over from a frozen one.
    """
    options: dict[str, Any] = {
        "echo": settings.echo,
        "hide_parameters": not settings.echo,  # an exception's text reaches the logs
        "pool_timeout": settings.pool_timeout,
        "poolclass": FairPool,
    }
    kind = family(url)
    if kind in TIMEOUT_ARGUMENTS:
        connect, answer = TIMEOUT_ARGUMENTS[kind]
        options["connect_args"] = {connect: settings.connect_timeout}
        if answer:
            options["connect_args"][answer] = settings.command_timeout
    if kind == "mysql":  # its default locks the gaps between rows, in which strangers' new rows belong
        options["isolation_level"] = "READ COMMITTED"
    if is_memory(url):
        options |= {"pool_size": 1, "max_overflow": 0}
    else:
        options |= {
            "pool_size": settings.pool_size,
            "max_overflow": settings.max_overflow,
            "pool_recycle": settings.pool_recycle,
            "pool_pre_ping": settings.pre_ping,
        }
    engine = create_async_engine(url, **options)
    statements.watch(engine.sync_engine)
    if kind == "sqlite":
        _prepare_sqlite(engine.sync_engine, settings.busy_timeout)
        _let_go_of_sqlite(engine.sync_engine)
    else:
        ping_briefly(engine, settings.connect_timeout, always=always_ping)
    if family(url) == "postgresql":
        _a_missing_socket_is_an_outage(engine.sync_engine)
    return engine


def for_reading(engine: AsyncEngine) -> AsyncEngine:
    """The same engine and pool, for sessions that only read."""
    options: dict[str, Any] = {"reading": True}
    if engine.dialect.name == "postgresql":  # no BEGIN, no COMMIT: READ COMMITTED looks anew with each statement, too
        options["isolation_level"] = "AUTOCOMMIT"
    return engine.execution_options(**options)


class Database:
    """The async engine and what opens sessions on it. One per app; `close()` when the app stops."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self.url = async_url(settings.url)
        self.family = family(self.url)
        _make_folder(self.url)
        self.engine: AsyncEngine = new_engine(self.url, settings)
        self._writing: AsyncEngine | AsyncConnection = self.engine
        self._reading: AsyncEngine | AsyncConnection = for_reading(self.engine)
        self._streaming = self.engine.execution_options(reading=True)
        self.info: dict[str, Any] = {}  # what every session carries along: who listens to events, the known callers
        self._sessions = async_sessionmaker(
            class_=CommittingSession, sync_session_class=RequestSession, expire_on_commit=False
        )
        # SQLAdmin configures the maker it is given, so it gets one of its own; it only reads through it.
        self.console_sessions = async_sessionmaker(
            self._reading, class_=PlainAsyncSession, sync_session_class=ConsoleSession, info=self.info
        )

    def session(self, *, reading: bool = False, streaming: bool = False) -> AsyncSession:
        """A new session, to be used with `async with`; the caller commits. `reading=True` promises not to write.

        `streaming`: it reads a long result bit by bit, for which PostgreSQL needs a transaction.
        """
        options = self._options(reading=reading)
        if streaming and isinstance(self._reading, AsyncEngine):
            options["bind"] = self._streaming
        return self._sessions(**options)

    def _options(self, *, reading: bool) -> dict[str, Any]:
        return {"bind": self._reading if reading else self._writing, "info": {**self.info, "reading": reading}}

    def reading_session(self) -> ReadingSession:
        """One for reading that costs nothing until it is asked for more than `rows`. A replica may answer."""
        engine = self._reading if self._sessions.kw["sync_session_class"] is RequestSession else None
        return ReadingSession(engine.sync_engine if isinstance(engine, AsyncEngine) else None, self._for_route)

    def _for_route(self) -> dict[str, Any]:
        options = self._options(reading=True)
        return {**self._sessions.kw, **options, "info": {**options["info"], "reads": True}}

    def writing_session(self) -> AsyncSession:
        """One for writing that goes a short way for new records (`store`), where asyncpg is the driver."""
        engine, kind = self._writing, self._sessions.kw["sync_session_class"]
        if self.family != "postgresql" or not isinstance(engine, AsyncEngine) or kind is not RequestSession:
            return self.session()
        return WritingSession(engine.sync_engine, {**self._sessions.kw, **self._options(reading=False)})

    async def at_once(
        self, first: Callable[[AsyncSession], Awaitable[T]], second: Callable[[AsyncSession], Awaitable[U]]
    ) -> tuple[T, U]:
        """Read from two places at the same time, each in a session of its own; one after the other in tests' only one.

        Neither waits for the other while it holds a connection, so many such requests do not block each other.
        """

        async def alone(work: Callable[[AsyncSession], Awaitable[V]]) -> V:
            async with self.session(reading=True) as session:
                return await work(session)

        if isinstance(self._reading, AsyncConnection):
            return await alone(first), await alone(second)
        one, other = await asyncio.gather(alone(first), alone(second))
        return one, other

    def open_as(self, kind: type[RequestSession]) -> None:
        """Make sessions of this kind from now on, which may listen to what they are asked."""
        self._sessions.configure(sync_session_class=kind)

    @asynccontextmanager
    async def bound_to(self, connection: AsyncConnection) -> AsyncIterator[None]:
        """Send every session, the console's too, to one connection: tests roll its outer transaction back."""
        before = self._writing, self._reading
        options: dict[str, Any] = {"join_transaction_mode": "create_savepoint"}
        self._writing = self._reading = connection
        self._sessions.configure(**options)
        self.console_sessions.configure(bind=connection, **options)
        try:
            yield
        finally:
            self._writing, self._reading = before
            options = {"join_transaction_mode": "conditional_savepoint"}
            self._sessions.configure(**options)
            self.console_sessions.configure(bind=self._reading, **options)

    async def start(self) -> None:
        """An in-memory database starts empty every time, so it gets its tables here; others by migration."""
        if is_memory(self.url):
            async with self.engine.begin() as connection:
                await connection.run_sync(SQLModel.metadata.create_all)

    async def close(self) -> None:
        await asyncio.shield(self.engine.dispose())


def sync_engine(settings: DatabaseSettings) -> Engine:
    """A sync engine for migrations, scripts and notebooks."""
    url = sync_url(settings.url)
    _make_folder(url)
    bounded = {} if family(url) == "sqlite" else {"connect_timeout": max(2, int(settings.connect_timeout))}
    engine = create_engine(url, echo=settings.echo, hide_parameters=not settings.echo, connect_args=bounded)
    if family(url) == "sqlite":
        _prepare_sqlite(engine, settings.busy_timeout)
    return engine


@contextmanager
def sync_session(settings: DatabaseSettings) -> Iterator[SyncSession]:
    """A sync session for scripts and notebooks: commits at the end, rolls back on an exception."""
    engine = sync_engine(settings)
    try:
        with SyncSession(engine) as session:
            yield session
            session.commit()
    finally:
        engine.dispose()


async def release(session: AsyncSession) -> None:
    """Give the connection, and SQLite's write lock, back while something slow is done. Only before the first write."""
    if session.info.get("wrote") or session.new or session.dirty or session.deleted:
        raise RuntimeError("this session has changes to store: call release() before making them")
    await session.commit()


@dataclass
class DeferredCommit:
    """For middleware that stores the answer in the very transaction of the work that it answers for.

    Put into a request's `state` as `deferred_commit`, it is handed the session, uncommitted, when the route has
    returned. Whoever put it there commits, and closes it in any case; what the route raised has been rolled back.
    """

    session: AsyncSession | None = None

    async def close(self) -> None:
        """Give the connection back; what was not committed is rolled back."""
        if self.session is not None:
            await self.session.close()


async def get_session(connection: HTTPConnection) -> AsyncIterator[AsyncSession]:
    """One session per request, committed at its edge: after the route returned, before the client hears of it."""
    database: Database = connection.app.state.database
    deferred: DeferredCommit | None = connection.scope.get("state", {}).get("deferred_commit")
    reading = connection.scope.get("method") in SAFE_METHODS
    # One that is handed on is asked more than to store records.
    session = database.session(reading=reading) if reading or deferred else database.writing_session()
    try:
        yield session
        if deferred is not None and deferred.session is None:
            deferred.session = session
            session.info.pop("over", None)  # but for this
            return
        if session.in_transaction() or session.info.get("after_commit"):
            await session.commit()
    finally:
        if session.in_transaction() and (deferred is None or deferred.session is not session):
            async with session:  # what was not used has no connection, and after the commit nor has any other
                pass  # closed, whatever happens to this task meanwhile


# scope="function": the default scope would commit after the client has seen its 200.
Session = Annotated[AsyncSession, Depends(get_session, scope="function")]


CENT = Decimal("0.01")


class Money(TypeDecorator[Decimal]):
    """An amount with two decimals, stored as whole cents: exact, and sortable, on every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> int | None:
        return None if value is None else int((Decimal(value) * 100).to_integral_value())

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[int | None], Decimal | None]:
        return _from_cents


def _from_cents(value: int | None) -> Decimal | None:
    return None if value is None else Decimal(value) * CENT
