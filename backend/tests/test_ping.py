"""A pooled connection is asked whether it still works before it is used again: cheaply, and not lost by it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import event, text

from backend.core import pool
from backend.core.config import DatabaseSettings
from backend.core.db import Database, sync_engine

WHO = {"postgresql": "SELECT pg_backend_pid()", "mariadb": "SELECT connection_id()"}
END = {"postgresql": "SELECT pg_terminate_backend({})", "mariadb": "KILL {}"}


@pytest.fixture
async def database(committed_database_url: str, database_name: str) -> AsyncIterator[Database]:
    if database_name == "sqlite":
        pytest.skip("a file has no connections to lose")
    database = Database(DatabaseSettings(url=committed_database_url))
    yield database
    await database.close()


async def who(database: Database, database_name: str) -> int:
    async with database.engine.connect() as connection:
        return int((await connection.execute(text(WHO[database_name]))).scalar_one())


async def test_a_connection_that_works_is_kept(database: Database, database_name: str) -> None:
    made: list[object] = []
    event.listen(database.engine.sync_engine, "connect", lambda *_: made.append(1))
    assert len({await who(database, database_name) for _ in range(5)}) == 1
    assert len(made) == 1


async def test_one_that_the_server_ended_is_replaced_without_an_error(
    database: Database, database_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "FRESH", 0)  # as if it had rested for a while
    first = await who(database, database_name)
    engine = sync_engine(DatabaseSettings(url=database.url.render_as_string(hide_password=False)))
    with engine.connect() as connection:
        connection.execute(text(END[database_name].format(first)))
    engine.dispose()
    async with asyncio.timeout(10):
        assert await who(database, database_name) != first
