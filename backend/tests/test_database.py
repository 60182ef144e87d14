"""Engine, sessions, and the one commit per request at its edge: on real databases, with real concurrency."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import cast

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, event, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.util.concurrency import await_only
from sqlmodel import SQLModel, delete, func, insert, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core import commits
from backend.core.commits import after_commit
from backend.core.config import DatabaseSettings
from backend.core.db import (
    Database,
    Money,
    Session,
    async_url,
    family,
    is_memory,
    release,
    sync_session,
    sync_url,
)
from backend.core.errors import Conflict
from backend.features.users import service
from backend.features.users.models import User
from backend.features.users.passwords import hash_password
from backend.main import create_app
from backend.testing import PASSWORD_HASH, new_client, session_of, settings_for, token_for


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("postgres://u:p@h/d", "postgresql+asyncpg://u:***@h/d"),
        ("postgresql+psycopg2://h/d", "postgresql+asyncpg://h/d"),
        ("postgresql://h/d?sslmode=require&channel_binding=require", "postgresql+asyncpg://h/d?ssl=require"),
        ("mysql://h/d", "mysql+aiomysql://h/d?charset=utf8mb4"),
        ("mariadb://h/d", "mysql+aiomysql://h/d?charset=utf8mb4"),
        ("sqlite:///x.db", "sqlite+aiosqlite:///x.db"),
    ],
)
def test_urls_as_people_and_platforms_write_them(given: str, used: str) -> None:
    assert async_url(given).render_as_string() == used
    assert sync_url(given).get_backend_name() == family(given)


def test_an_unknown_database_is_named() -> None:
    with pytest.raises(ValueError, match="'oracle'"):
        async_url("oracle://h/d")


@pytest.mark.parametrize(("url", "memory"), [("sqlite://", True), ("sqlite:///:memory:", True), ("sqlite:///x", False)])
def test_memory_is_recognised(url: str, memory: bool) -> None:
    assert is_memory(async_url(url)) == memory


@pytest.fixture
async def database(committed_database_url: str) -> Database:
    return Database(DatabaseSettings(url=committed_database_url))


@pytest.fixture
async def free_app(committed_database_url: str) -> FastAPI:
    """An app on the real pool: what these tests write is committed, and cleaned up by them."""
    return create_app(settings_for(committed_database_url))


async def count(database: Database, email: str) -> int:
    async with database.session(reading=True) as session:
        return (await session.exec(select(func.count()).select_from(User).where(User.email == email))).one()


async def forget(database: Database, email: str) -> None:
    async with database.session() as session:
        for user in (await session.exec(select(User).where(User.email == email))).all():
            await session.delete(user)
        await session.commit()


async def test_a_request_commits_once_before_its_answer_and_not_when_it_fails(free_app: FastAPI) -> None:
    database: Database = free_app.state.database

    @free_app.post("/make/{email}")
    async def make(email: str, session: Session, fail: bool = False) -> int:
        session.add(User(email=email, password_hash=PASSWORD_HASH))
        await session.flush()
        if fail:
            raise Conflict
        return 1

    async with new_client(free_app) as client:
        assert (await client.post("/make/kept")).status_code == 200
        assert await count(database, "kept") == 1
        assert (await client.post("/make/lost?fail=1")).status_code == 409
        assert await count(database, "lost") == 0
        assert (await client.post("/make/kept")).status_code == 409
    await forget(database, "kept")
    await database.close()


async def test_a_failing_commit_is_an_error_not_a_200(free_app: FastAPI) -> None:
    """The write is only added, so the database first sees it at the commit, after the route has returned."""

    @free_app.post("/late")
    async def late(session: Session) -> int:
        session.add_all(User(email="same", password_hash=PASSWORD_HASH) for _ in range(2))
        return 1

    async with new_client(free_app) as client:
        assert (await client.post("/late")).status_code == 409
    assert await count(free_app.state.database, "same") == 0
    await free_app.state.database.close()


async def test_concurrent_edits_lose_nothing(free_app: FastAPI) -> None:
    """Of many edits at once each either counts or is told to come again: 409 or 503, never a lost update."""
    database: Database = free_app.state.database
    async with database.session() as session:
        user = User(email="busy@example.com", role="admin", password_hash=PASSWORD_HASH)
        session.add(user)
        await session.flush()
        session.add(session_of(user))
        await session.commit()
    async with new_client(free_app, headers={"Authorization": f"Bearer {token_for(free_app, user)}"}) as client:
        path = f"/api/v1/users/{user.id}"
        names = [f"Name {number}" for number in range(20)]
        answers = await asyncio.gather(*(client.patch(path, json={"full_name": name}) for name in names))
        done = [answer for answer in answers if answer.status_code == 200]
        assert {answer.status_code for answer in answers} <= {200, 409, 503}
        final = (await client.get(path)).json()
    assert len(done) == final["version"] - 1 > 0
    assert final["full_name"] in {answer.json()["full_name"] for answer in done}
    await forget(database, "busy@example.com")
    await database.close()


async def test_readers_and_writers_of_sqlite_do_not_trip_each_other(tmp_path: Path) -> None:
    """Read-then-write transactions of several connections: with deferred BEGIN, some fail at once."""
    database = Database(DatabaseSettings(url=f"sqlite:///{tmp_path}/busy.db"))
    async with database.engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)

    async def read_then_write(number: int) -> None:
        async with database.session() as session:
            await session.exec(select(func.count()).select_from(User))
            await asyncio.sleep(0)
            session.add(User(email=f"{number}@example.com", password_hash=PASSWORD_HASH))
            await session.commit()

    await asyncio.gather(*(read_then_write(number) for number in range(30)))
    async with database.session(reading=True) as session:
        assert (await session.exec(select(func.count()).select_from(User))).one() == 30
        connection = await session.connection()
        pragmas = [
            (await connection.execute(text(f"PRAGMA {name}"))).scalar() for name in ("journal_mode", "foreign_keys")
        ]
    assert pragmas == ["wal", 1]
    await database.close()


async def test_a_pool_that_is_used_up_is_a_bounded_wait_then_503(
    make_app: Callable[..., FastAPI], committed_database_url: str
) -> None:
    app = make_app(
        DATABASE_URL=committed_database_url,
        DATABASE__POOL_SIZE="1",
        DATABASE__MAX_OVERFLOW="0",
        DATABASE__POOL_TIMEOUT="0.2",
        LOG__LEVEL="error",
    )
    database: Database = app.state.database
    async with database.engine.connect(), new_client(app) as client:
        answer = await client.post("/api/v1/auth/token", data={"username": "a@example.com", "password": "x"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    await database.close()


async def test_a_postgresql_whose_socket_is_gone_is_an_outage(make_app: Callable[..., FastAPI]) -> None:
    async with new_client(make_app(DATABASE_URL="postgresql://nobody@/none?host=/nonexistent")) as client:
        answer = await client.post("/api/v1/auth/token", data={"username": "a@example.com", "password": "x"})
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")


async def test_in_memory_sqlite_is_a_whole_app(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(DATABASE_URL="sqlite://")
    body = {"email": "demo@example.com", "password": "a very fine password"}
    async with app.router.lifespan_context(app), new_client(app) as client:
        answers = await asyncio.gather(*(client.post("/api/v1/auth/signup", json=body) for _ in range(3)))
        assert sorted(answer.status_code for answer in answers) == [201, 409, 409]


def test_the_sync_session_commits_or_rolls_back(committed_database_url: str) -> None:
    settings = DatabaseSettings(url=committed_database_url)
    with sync_session(settings) as session:
        session.add(User(email="script@example.com", password_hash=PASSWORD_HASH))
    with pytest.raises(IntegrityError), sync_session(settings) as session:
        session.add(User(email="script@example.com", password_hash=PASSWORD_HASH))
    with sync_session(settings) as session:
        user = session.exec(select(User).where(User.email == "script@example.com")).one()
        assert user.created_at.tzinfo is not None
        session.delete(user)


def test_a_new_sqlite_file_gets_its_folder(tmp_path: Path) -> None:
    with sync_session(DatabaseSettings(url=f"sqlite:///{tmp_path}/new/folder/x.db")):
        assert (tmp_path / "new/folder").is_dir()


@pytest.mark.parametrize(("amount", "cents"), [("0.01", 1), ("19.99", 1999), ("9999999999.99", 999999999999)])
def test_money_is_whole_cents(amount: str, cents: int) -> None:
    dialect = async_url("sqlite://").get_dialect()()
    assert Money().process_bind_param(Decimal(amount), dialect) == cents
    assert Money().result_processor(dialect, None)(cents) == Decimal(amount)
    assert Money().process_bind_param(None, dialect) is None
    assert Money().result_processor(dialect, None)(None) is None


async def test_two_administrators_cannot_both_step_down(free_app: FastAPI) -> None:
    """Each would be the other's reason to go; whoever comes second is refused."""
    database: Database = free_app.state.database
    for _ in range(5):
        async with database.session() as session:
            users = [User(email=f"{n}@down.example", role="admin", password_hash=PASSWORD_HASH) for n in range(2)]
            session.add_all(users)
            await session.flush()
            session.add_all(session_of(user) for user in users)
            await session.commit()
        async with new_client(free_app) as client:

            async def step_down(user: User, client: httpx2.AsyncClient = client) -> int:
                headers = {"Authorization": f"Bearer {token_for(free_app, user)}"}
                answer = await client.patch(f"/api/v1/users/{user.id}", json={"role": "staff"}, headers=headers)
                return answer.status_code

            statuses = await asyncio.gather(*(step_down(user) for user in users))
        assert sorted(statuses) == [200, 409]
        for user in users:
            await forget(database, user.email)
    await database.close()


async def test_services_hash_without_holding_a_transaction(free_app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []
    async with free_app.state.database.session() as session:

        async def watched(password: str) -> str:
            held.append(session.in_transaction())
            return await hash_password(password)

        monkeypatch.setattr(service, "hash_password", watched)
        await session.exec(select(User.id))
        user = await service.create_user(session, email="hashed@example.com", password="another good password")
        await session.commit()
        await session.refresh(user)
        await service.update_user(session, user, password="yet another good one")
        await session.commit()
    assert held == [False, False]
    await forget(free_app.state.database, "hashed@example.com")
    await free_app.state.database.close()


async def test_a_session_is_released_only_before_it_wrote(free_app: FastAPI) -> None:
    async with free_app.state.database.session() as session:
        await session.exec(select(User.id))
        assert session.in_transaction()
        await release(session)
        assert not session.in_transaction()
        session.add(User(email="pending@example.com", password_hash=PASSWORD_HASH))
        with pytest.raises(RuntimeError, match="changes to store"):
            await release(session)
        await session.flush()
        with pytest.raises(RuntimeError, match="changes to store"):
            await release(session)
    await free_app.state.database.close()


async def test_what_fails_in_the_database_is_logged_without_its_values(
    make_app: Callable[..., FastAPI], capsys: pytest.CaptureFixture[str]
) -> None:
    app = make_app(DATABASE_URL="sqlite://", LOG__LEVEL="info", LOG__FORMAT="json")  # without its tables
    async with new_client(app) as client:
        body = {"email": "private@example.com", "password": "another good password", "full_name": "Private Person"}
        assert (await client.post("/api/v1/auth/signup", json=body)).status_code == 500
    written = capsys.readouterr().err
    assert "no such table" in written
    assert "private@" not in written
    assert "argon2" not in written
    assert "Private" not in written


async def test_a_cancelled_statement_leaves_no_lock_on_sqlite(tmp_path: Path) -> None:
    """Without `_let_go_of_sqlite` the lock stays for as long as an exception somewhere refers to the statement."""
    database = Database(DatabaseSettings(url=f"sqlite:///{tmp_path}/db", busy_timeout=2))

    async def run(statement: str) -> None:
        async with database.session() as session:
            connection = await session.connection()
            await connection.execute(text("INSERT INTO locks VALUES (1)"))
            begun.set()
            await connection.execute(text(statement))
            await session.commit()

    async with database.engine.begin() as connection:
        await connection.execute(text("CREATE TABLE locks (id INTEGER PRIMARY KEY)"))
    long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000000) SELECT max(i) FROM n"
    errors: list[object] = []
    for _ in range(2):
        begun = asyncio.Event()
        task = asyncio.create_task(run(long))
        await begun.wait()
        await asyncio.sleep(0.05)  # into the statement; before it, there is nothing to interrupt
        task.cancel()
        errors += await asyncio.gather(task, return_exceptions=True)
    assert {type(error) for error in errors} == {asyncio.CancelledError}
    async with asyncio.timeout(10):
        await run("SELECT 1")
    await database.close()


async def test_what_waits_for_the_commit_is_done_though_another_fails(session: AsyncSession) -> None:
    done: list[str] = []

    def fail() -> None:
        raise LookupError

    for action in (lambda: done.append("first"), fail, lambda: done.append("last")):
        after_commit(session, action)
    with pytest.raises(LookupError):
        await session.commit()
    assert done == ["first", "last"]


async def test_a_savepoint_takes_along_what_waits_in_it_and_nothing_else(session: AsyncSession) -> None:
    done: list[str] = []

    def wait(name: str) -> None:
        after_commit(session, lambda: done.append(name))

    wait("before")
    dropped = await session.begin_nested()
    wait("in one that is rolled back")
    async with session.begin_nested():
        wait("in one that is released within it")
    await dropped.rollback()
    async with session.begin_nested():
        wait("in one that is released")
    assert done == []
    await session.commit()
    assert done == ["before", "in one that is released"]


async def test_a_write_is_known_of_until_it_is_committed_or_its_savepoint_is_rolled_back(session: AsyncSession) -> None:
    async def write(email: str) -> None:
        session.add(User(email=email, password_hash=PASSWORD_HASH))
        await session.flush()

    dropped = await session.begin_nested()
    await write("dropped@example.com")
    await dropped.rollback()
    await release(session)
    async with session.begin_nested():
        await write("kept@example.com")
    await (await session.begin_nested()).rollback()
    with pytest.raises(RuntimeError, match="changes to store"):
        await release(session)


WRITES = (
    update(User).values(full_name="?"),
    delete(User),
    insert(User).values(email="new@example.com", password_hash="!"),
    cast("UpdateBase", text(" Update users SET full_name = '?'")),
)


@pytest.mark.parametrize("statement", WRITES, ids=str)
async def test_a_session_for_reading_refuses_statements_that_write(database: Database, statement: UpdateBase) -> None:
    async with database.session(reading=True) as session, database.console_sessions() as console:
        for asked in (session.exec(statement), console.execute(statement)):
            with pytest.raises(RuntimeError, match="only reads"):
                await asked
    await database.close()


async def test_a_session_for_reading_refuses_to_flush(database: Database) -> None:
    async with database.session(reading=True) as session, database.console_sessions() as console:
        for one in (session, console):
            one.add(User(email="new@example.com", password_hash="!"))
            with pytest.raises(RuntimeError, match="only reads"):
                await one.flush()
    await database.close()


async def test_a_commit_is_carried_through_though_the_request_is_given_up(database: Database) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()
    done: list[str] = []

    @event.listens_for(database.engine.sync_engine, "commit")
    def hold(_connection: Connection) -> None:
        begun.set()
        await_only(go_on.wait())

    async def work() -> None:
        async with database.session() as session:
            session.add(User(email="carried@example.com", password_hash=PASSWORD_HASH))
            event.listen(
                session.sync_session, "after_flush", lambda *_: after_commit(session, lambda: done.append("mailed"))
            )
            await session.commit()

    async with asyncio.timeout(20):
        task = asyncio.create_task(work())
        await begun.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()  # once more, as a server does that stops
        await asyncio.sleep(0)
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert done == ["mailed"]
    assert await count(database, "carried@example.com") == 1
    await forget(database, "carried@example.com")
    await database.close()


async def test_a_commit_that_does_not_end_holds_nobody_up_for_long(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "PATIENCE", 0.1)
    begun = asyncio.Event()
    done: list[str] = []

    @event.listens_for(database.engine.sync_engine, "commit")
    def hang(_connection: Connection) -> None:
        begun.set()
        await_only(asyncio.Event().wait())

    async def work() -> None:
        async with database.session() as session:
            session.add(User(email="hanging@example.com", password_hash=PASSWORD_HASH))
            after_commit(session, lambda: done.append("mailed"))
            after_commit(session, lambda: done.append("invalidated"), if_unsure=True)
            await session.commit()

    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=20)
    assert task.cancelled()
    assert done == ["invalidated"]
    await database.close()


async def test_what_is_told_once_more_may_wait_for_an_answer_as_at_the_commit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "PATIENCE", 0.05)
    done: list[str] = []

    def tell() -> None:
        await_only(asyncio.sleep(0))
        done.append("told")

    async with database.session() as session:
        after_commit(session, tell, if_unsure=True)
        await session.run_sync(lambda inner: commits.do_what_waited(inner, unsure=True))
        assert done == ["told"]
        async with asyncio.timeout(10):
            while done != ["told", "told"]:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def swallowing_commits(url: URL) -> AsyncIterator[URL]:
    """A way to PostgreSQL on which the COMMIT arrives, and its answer does not: the connection breaks instead."""
    folder = url.query.get("host")

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if isinstance(folder, str):
            from_server, to_server = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{url.port or 5432}")
        else:
            from_server, to_server = await asyncio.open_connection(url.host, url.port or 5432)

        async def back() -> None:
            while answer := await from_server.read(65536):
                writer.write(answer)

        answering = asyncio.create_task(back())
        while asked := await reader.read(65536):
            if arrived := b"COMMIT" in asked:
                answering.cancel()
                await asyncio.wait({answering})
            to_server.write(asked)
            if arrived:
                await from_server.read(65536)
                break
        for one in (to_server, writer):
            one.close()
            await one.wait_closed()
        answering.cancel()

    server = await asyncio.start_server(pass_on, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield url.set(host="127.0.0.1", port=port, query={})


async def test_when_the_answer_to_a_commit_is_lost_caches_are_told_and_nobody_gets_mail(
    committed_database_url: str, database: Database
) -> None:
    if database.family != "postgresql":
        pytest.skip("the way there speaks PostgreSQL's protocol")
    done: list[str] = []
    async with swallowing_commits(make_url(committed_database_url)) as url:
        behind = Database(DatabaseSettings(url=url.render_as_string(hide_password=False)))
        async with behind.session() as session:
            session.add(User(email="unsure@example.com", password_hash=PASSWORD_HASH))
            after_commit(session, lambda: done.append("mailed"))
            after_commit(session, lambda: done.append("invalidated"), if_unsure=True)
            with pytest.raises(DBAPIError):
                await session.commit()
            assert done == ["invalidated"]
            await session.rollback()
            await session.commit()
        await behind.close()
    assert done == ["invalidated"]
    assert await count(database, "unsure@example.com") == 1
    await forget(database, "unsure@example.com")
    await database.close()
