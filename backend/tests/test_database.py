"""Engine, sessions, and the one commit per request at its edge: on real databases, with real concurrency."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.config import DatabaseSettings
from backend.core.db import (
    Database,
    Money,
    Session,
    after_commit,
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
    assert Money().process_result_value(cents, dialect) == Decimal(amount)
    assert Money().process_bind_param(None, dialect) is None
    assert Money().process_result_value(None, dialect) is None


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
