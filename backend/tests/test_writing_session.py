"""`store` goes a short way on PostgreSQL, and means what `session.add` and `flush` mean, in whatever company."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import SQLModel, col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core import commits, pool
from backend.core.commits import after_commit
from backend.core.config import DatabaseSettings
from backend.core.db import Database, family
from backend.core.errors import Unavailable, of_database
from backend.core.writing_session import Along, RecordStoring, WritingSession, store, store_last
from backend.features.users.models import User


@pytest.fixture
async def database(committed_database_url: str) -> AsyncIterator[Database]:
    database = Database(DatabaseSettings(url=committed_database_url, pool_size=2, max_overflow=0, pool_timeout=0.5))
    async with database.engine.connect() as connection:  # from now on one is lent, as it has just worked
        await connection.execute(text("SELECT 1"))
    yield database
    assert "Current Checked out connections: 0" in database.engine.pool.status()
    await database.close()


@pytest.fixture
def straight(database: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    monkeypatch.setattr(pool, "FRESH", 60)  # seconds: a busy machine makes no difference
    if family(database.url) != "postgresql":
        pytest.skip("the others go SQLAlchemy's way")
    return database


WAITS = """
    SELECT pid FROM pg_locks
    WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""
Store = Callable[..., Awaitable[Any]]


def somebody() -> dict[str, Any]:
    return {"email": f"{secrets.token_hex(8)}@example.com", "password_hash": "!"}


@pytest.fixture
async def both_lent(straight: Database) -> Database:
    async with straight.engine.connect(), straight.engine.connect():
        return straight


async def count(database: Database, *people: dict[str, Any]) -> int:
    emails = [one["email"] for one in people]
    async with database.session(reading=True) as session:
        return (await session.exec(select(func.count()).where(col(User.email).in_(emails)))).one()


def has_opened(session: AsyncSession) -> bool:
    assert isinstance(session, WritingSession)
    return session.opened


async def backend_pid(session: WritingSession) -> int:
    return int(await session._lent.driver_connection.fetchval("SELECT pg_backend_pid()"))  # type: ignore[union-attr]


async def end(database: Database, pid: int) -> None:
    other = Database(DatabaseSettings(url=database.url.render_as_string(hide_password=False)))
    async with other.engine.connect() as connection:
        await connection.execute(text(f"SELECT pg_terminate_backend({pid})"))
    await other.close()


@asynccontextmanager
async def locked_users(database: Database) -> AsyncIterator[AsyncConnection]:
    """By somebody else, who has no connection of this pool."""
    other = Database(DatabaseSettings(url=database.url.render_as_string(hide_password=False)))
    async with other.engine.begin() as connection:
        await connection.execute(text("LOCK TABLE users IN EXCLUSIVE MODE"))
        yield connection
    await other.close()


async def waiting_for_the_lock(blocking: AsyncConnection) -> int:
    """Whose statement has arrived: the process of the server."""
    while (pid := (await blocking.execute(text(WAITS))).scalar()) is None:
        await asyncio.sleep(0.01)
    return int(pid)


async def test_what_is_stored_is_there_after_the_commit_as_if_it_had_been_added(database: Database) -> None:
    one, other = somebody(), somebody()
    async with database.writing_session() as session:
        stored = await store(session, User, **one, full_name="Ada")
        assert await count(database, one) == 0 or family(database.url) == "sqlite"
        await session.commit()
    async with database.session() as session:
        session.add(added := User(**other, full_name="Ada"))
        await session.flush()
        await session.commit()
    async with database.session(reading=True) as session:
        rows = [(await session.get_one(User, record.id)).model_dump() for record in (stored, added)]
    mine, others = ({**row, "id": 0, "email": "", "created_at": 0, "updated_at": 0} for row in rows)
    assert mine == others
    assert {name: getattr(stored, name) for name in rows[0]} == rows[0]


async def test_it_asks_postgresql_nothing_else(straight: Database) -> None:
    session = straight.writing_session()
    await store(session, User, **somebody())
    await session.commit()
    assert not has_opened(session)


async def test_without_a_commit_nothing_is_stored(database: Database) -> None:
    person = somebody()
    async with database.writing_session() as session:
        await store(session, User, **person)
    assert await count(database, person) == 0


@pytest.mark.parametrize("commits", [True, False])
async def test_what_the_session_does_afterwards_is_in_the_same_transaction(database: Database, commits: bool) -> None:
    one, other = somebody(), somebody()
    async with database.writing_session() as session:
        stored = await store(session, User, **one)
        found = await session.get_one(User, stored.id)  # it is seen, and may be changed
        found.full_name = "Changed"
        session.add(User(**other))
        await session.flush()
        third = await store(session, User, **(last := somebody()))
        assert third.id > stored.id
        if commits:
            await session.commit()
    assert await count(database, one, other, last) == (3 if commits else 0)


async def test_a_session_that_is_open_already_goes_on_as_ever(database: Database) -> None:
    one, other = somebody(), somebody()
    async with database.writing_session() as session:
        session.add(User(**one))
        await store(session, User, **other)
        await session.commit()
    assert await count(database, one, other) == 2


async def test_what_waits_for_the_commit_is_done_once_and_only_then(database: Database) -> None:
    done: list[str] = []
    async with database.writing_session() as session:
        after_commit(session, lambda: done.append("before"))
        await store(session, User, **somebody())
        after_commit(session, lambda: done.append("after"))
        assert done == []
        await session.commit()
        assert done == ["before", "after"]
        await session.commit()
    async with database.writing_session() as session:
        after_commit(session, lambda: done.append("never"))
        await store(session, User, **somebody())
    assert done == ["before", "after"]


@pytest.mark.parametrize("how", [store, store_last])
async def test_who_listens_is_told_and_may_store_something_along_with_it(straight: Database, how: Store) -> None:
    person, other = somebody(), somebody()
    told: list[tuple[type[SQLModel], Any]] = []

    async def listen(_session: AsyncSession, storing: RecordStoring) -> None:
        told.append((storing.model, storing.values["full_name"]))
        storing.along.append(Along(model=User, values=other, refers="full_name"))

    straight.info["handlers"] = {RecordStoring: (listen,)}
    async with straight.writing_session() as session:
        stored = await how(session, User, **person, full_name="First")
        assert not has_opened(session)
    assert told == [(User, "First")]
    there = 1 if how is store_last else 0
    assert await count(straight, person) == await count(straight, other) == there
    async with straight.session(reading=True) as session:
        query = select(User.full_name).where(User.email == other["email"])
        assert list((await session.exec(query)).all()) == [str(stored.id)] * there


async def test_when_who_listens_asks_more_of_the_session_the_record_is_flushed(straight: Database) -> None:
    person, other = somebody(), somebody()

    async def listen(session: AsyncSession, _storing: RecordStoring) -> None:
        session.add(User(**other))

    straight.info["handlers"] = {RecordStoring: (listen,)}
    async with straight.writing_session() as session:
        await store_last(session, User, **person)
        assert await count(straight, person, other) == 0
        await session.commit()
    assert await count(straight, person, other) == 2


async def test_the_last_thing_is_committed_with_what_waits_for_it(straight: Database) -> None:
    person, done = somebody(), list[str]()
    async with straight.writing_session() as session:
        after_commit(session, lambda: done.append("told"))
        stored = await store_last(session, User, **person)
        assert (stored.email, done) == (person["email"], ["told"])
        await session.commit()
    assert done == ["told"]
    assert await count(straight, person) == 1


async def test_nothing_comes_after_the_last_on_any_database(database: Database) -> None:
    one, other = somebody(), somebody()
    for also in (store, store_last):
        async with database.writing_session() as session:
            await store_last(session, User, **(one := somebody()))
            with pytest.raises(RuntimeError, match="was to be the last"):
                await also(session, User, **other)
    async with database.writing_session() as session:
        await store_last(session, User, **(one := somebody()))
        with pytest.raises(RuntimeError, match="was to be the last"):
            await session.exec(select(User.id).limit(1))
    async with database.writing_session() as session:
        await store_last(session, User, **(one := somebody()))
        await session.commit()
    assert (await count(database, one), await count(database, other)) == (1, 0)


async def test_the_last_thing_may_follow_others_in_their_transaction(database: Database) -> None:
    one, other = somebody(), somebody()
    async with database.writing_session() as session:
        await store(session, User, **one)
        await store_last(session, User, **other)
        assert await count(database, one, other) == 0 or family(database.url) == "sqlite"
        await session.commit()
    assert await count(database, one, other) == 2


@pytest.mark.parametrize("how", [store, store_last])
async def test_a_clash_has_sqlalchemys_words_and_stores_nothing(database: Database, how: Store) -> None:
    one, other = somebody(), somebody()
    async with database.writing_session() as session:
        await store(session, User, **one)
        await session.commit()
    done: list[str] = []
    async with database.writing_session() as session:
        if how is store:
            await store(session, User, **other)
        after_commit(session, lambda: done.append("invalidated"), if_unsure=True)
        with pytest.raises(IntegrityError):
            await how(session, User, **one)
    assert await count(database, other) == 0
    assert not done


async def test_a_missing_value_is_an_error_of_ours(straight: Database) -> None:
    async with straight.writing_session() as session:
        with pytest.raises(TypeError, match="password_hash is missing"):
            await store(session, User, email="a@example.com")


async def test_a_connection_that_was_lost_before_is_replaced(straight: Database) -> None:
    async with straight.writing_session() as session:
        await store(session, User, **somebody())
        assert isinstance(session, WritingSession)
        pid = await backend_pid(session)
        await session.commit()
    await end(straight, pid)
    person = somebody()
    async with straight.writing_session() as session:
        await store(session, User, **person)
        await session.commit()
    assert await count(straight, person) == 1


async def test_when_the_connection_is_lost_at_the_last_nobody_knows_and_caches_are_told(
    straight: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commits, "PATIENCE", 0.1)
    person, done = somebody(), list[str]()
    async with locked_users(straight) as blocking, straight.writing_session() as session:
        after_commit(session, lambda: done.append("mailed"))
        after_commit(session, lambda: done.append("invalidated"), if_unsure=True)
        storing = asyncio.create_task(store_last(session, User, **person))
        pid = await waiting_for_the_lock(blocking)
        assert not has_opened(session)
        await end(straight, pid)
        with pytest.raises(DBAPIError) as failed:
            await storing
    assert isinstance(of_database(failed.value), Unavailable)
    assert done == ["invalidated"]
    assert await count(straight, person) == 0
    async with asyncio.timeout(10):
        while done != ["invalidated", "invalidated"]:  # PostgreSQL might have been at the COMMIT still
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("then", ["insert", "commit"])
async def test_a_connection_that_is_lost_meanwhile_is_an_outage(straight: Database, then: str) -> None:
    person, done = somebody(), list[str]()
    async with straight.writing_session() as session:
        await store(session, User, **person)
        after_commit(session, lambda: done.append("mailed"))
        after_commit(session, lambda: done.append("invalidated"), if_unsure=True)
        assert isinstance(session, WritingSession)
        await end(straight, await backend_pid(session))
        with pytest.raises(DBAPIError) as failed:
            await (session.commit() if then == "commit" else store(session, User, **somebody()))
    assert isinstance(of_database(failed.value), Unavailable)
    assert done == (["invalidated"] if then == "commit" else [])
    assert await count(straight, person) == 0


async def test_another_lost_connection_does_not_take_the_transaction_along(both_lent: Database) -> None:
    first, second = somebody(), somebody()
    async with both_lent.writing_session() as session, both_lent.writing_session() as other:
        await store(session, User, **first)
        await store(other, User, **somebody())
        assert isinstance(other, WritingSession)
        await end(both_lent, await backend_pid(other))
        with pytest.raises(DBAPIError):  # and SQLAlchemy opens all of the pool's connections anew
            await store(other, User, **somebody())
        session.add(User(**second))
        await session.flush()
        assert has_opened(session)
        await session.commit()
    assert await count(both_lent, first, second) == 2


@pytest.mark.parametrize("how", [store, store_last])
async def test_when_all_connections_are_lost_at_once_all_hear_of_an_outage(both_lent: Database, how: Store) -> None:
    async def storing() -> None:
        async with both_lent.writing_session() as session:
            await how(session, User, **somebody())

    async with locked_users(both_lent) as blocking:
        both = [asyncio.create_task(storing()) for _ in range(2)]
        while len(pids := (await blocking.execute(text(WAITS))).scalars().all()) < 2:
            await asyncio.sleep(0.01)
        for pid in pids:
            await end(both_lent, pid)
        failed = await asyncio.gather(*both, return_exceptions=True)
    assert all(isinstance(one, DBAPIError) and isinstance(of_database(one), Unavailable) for one in failed)


@pytest.mark.parametrize("how", [store, store_last])
async def test_who_gives_up_stores_nothing(straight: Database, how: Store) -> None:
    first, second = somebody(), somebody()
    async with locked_users(straight) as blocking:

        async def wait() -> None:
            async with straight.writing_session() as session:
                await how(session, User, **first)
                await session.commit()

        waiting = asyncio.create_task(wait())
        await waiting_for_the_lock(blocking)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with straight.writing_session() as session:
        await store(session, User, **second)
        await session.commit()
    assert await count(straight, first, second) == 1


async def test_a_commit_is_carried_through_though_nobody_waits_for_it_any_more(straight: Database) -> None:
    person, done = somebody(), list[str]()
    session = straight.writing_session()
    await store(session, User, **person)
    after_commit(session, lambda: done.append("told"))
    committing = asyncio.create_task(session.commit())
    await asyncio.sleep(0)
    committing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await committing
    assert done == ["told"]
    assert await count(straight, person) == 1


async def test_a_wait_for_a_connection_has_an_end(straight: Database) -> None:
    async with straight.engine.connect(), straight.engine.connect():
        with pytest.raises(PoolTimeout) as failed:
            await store(straight.writing_session(), User, **somebody())
    assert isinstance(of_database(failed.value), Unavailable)


async def test_many_at_once_are_all_stored(straight: Database) -> None:
    people = [somebody() for _ in range(40)]

    async def one(person: dict[str, Any], number: int) -> None:
        async with straight.writing_session() as session:
            await store(session, User, **person)
            if number % 3 == 0:
                await session.exec(select(User.id).limit(1))
            if number % 4:
                await session.commit()

    await asyncio.gather(*(one(person, number) for number, person in enumerate(people)))
    assert await count(straight, *people) == 30
