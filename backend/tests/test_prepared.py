"""What goes straight to asyncpg says what SQLAlchemy would say, and no connection is the worse for it."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest
from sqlalchemy import bindparam, func, literal, select, text
from sqlalchemy.exc import DBAPIError
from sqlmodel import col

from backend.core.config import DatabaseSettings
from backend.core.db import Database, Money, family
from backend.core.prepared import Prepared
from backend.core.read_session import rows
from backend.features.users.models import User

MONEY = Prepared(
    select(
        bindparam("price", type_=Money).label("price"),
        literal("fixed").label("fixed"),
        bindparam("name", "by default", type_=User.__table__.c.email.type).label("name"),  # type: ignore[attr-defined]
    )
)


@pytest.fixture
async def database(committed_database_url: str) -> AsyncIterator[Database]:
    database = Database(DatabaseSettings(url=committed_database_url, pool_size=2, max_overflow=0, pool_timeout=5))
    yield database
    await database.close()


def is_given_back(database: Database) -> bool:
    return "Current Checked out connections: 0" in database.engine.pool.status()


@pytest.mark.parametrize("kind", ["route", "reading", "writing"])
async def test_parameters_and_columns_are_converted_as_ever(database: Database, kind: str) -> None:
    session = database.reading_session() if kind == "route" else database.session(reading=kind == "reading")
    async with session:
        [row] = await rows(session, MONEY, {"price": Decimal("19.99")})
        assert (row.price, row.fixed, row.name) == tuple(row) == (Decimal("19.99"), "fixed", "by default")
        [row] = await rows(session, MONEY, {"price": Decimal(-3), "name": "Ann"})
        assert (row.price, row.name) == (Decimal("-3.00"), "Ann")
    assert is_given_back(database)


async def test_nothing_found_is_no_rows(database: Database) -> None:
    by_key = Prepared(select(col(User.id), col(User.email)).where(col(User.id) == bindparam("id")))
    assert list(await rows(database.reading_session(), by_key, {"id": 2**31 - 1})) == []


async def test_a_session_that_has_written_sees_what_it_wrote(database: Database) -> None:
    by_email = Prepared(select(col(User.id)).where(col(User.email) == bindparam("email")))
    async with database.session() as session:
        session.add(User(email="just@example.com", password_hash="x"))
        await session.flush()
        assert len(await rows(session, by_email, {"email": "just@example.com"})) == 1


def test_what_depends_on_the_values_of_parameters_is_refused() -> None:
    with pytest.raises(TypeError, match="depends on its parameters"):
        Prepared(select(col(User.id)).where(col(User.id).in_([1, 2])))


async def test_a_lost_connection_is_replaced(database: Database) -> None:
    if family(database.url) != "postgresql":
        pytest.skip("the others go SQLAlchemy's way")
    who = Prepared(select(func.pg_backend_pid().label("pid")))
    [mine] = await rows(database.reading_session(), who)
    other = Database(DatabaseSettings(url=database.url.render_as_string(hide_password=False)))
    async with other.engine.connect() as connection:
        await connection.execute(text(f"SELECT pg_terminate_backend({mine.pid})"))
    await other.close()
    [now] = await rows(database.reading_session(), who)
    assert now.pid != mine.pid
    assert is_given_back(database)


async def test_who_gives_up_leaves_no_connection_behind(database: Database) -> None:
    if family(database.url) != "postgresql":
        pytest.skip("the others go SQLAlchemy's way")
    slow = Prepared(select(func.pg_sleep(30).label("slept"), func.pg_backend_pid().label("pid")))
    waiting = asyncio.create_task(rows(database.reading_session(), slow))
    while is_given_back(database):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)  # it has been sent
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert is_given_back(database)
    [row] = await rows(database.reading_session(), Prepared(select(literal(1).label("one"))))
    assert row.one == 1


async def test_errors_have_sqlalchemys_words(database: Database) -> None:
    if family(database.url) != "postgresql":
        pytest.skip("the others go SQLAlchemy's way")
    with pytest.raises(DBAPIError, match="division by zero"):
        await rows(database.reading_session(), Prepared(select((1 / func.abs(bindparam("by", 0))).label("x"))))
