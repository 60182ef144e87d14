"""Outages of the database under load, against real servers: callers hear 503 with Retry-After, and then all is well."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from alembic import command
from sqlalchemy import text
from sqlmodel import Session

from backend.core.config import DatabaseSettings
from backend.core.db import sync_engine, sync_session
from backend.features import FEATURES
from backend.features.users.models import User
from backend.main import create_app
from backend.testing import (
    PASSWORD_HASH,
    OwnPostgreSQL,
    run_alembic,
    running_server,
    session_of,
    settings_for,
    token_for,
)

PATH = "/api/v1/users/me"
ITEMS, LAMP = "/api/v1/store/items", {"name": "Lamp", "price": "19.99"}
SEEN = 20  # answers, until something counts as so


@asynccontextmanager
async def caller_of(postgresql: OwnPostgreSQL, **variables: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Somebody with a token, at a server process that asks the database about each request."""
    run_alembic(postgresql.url, lambda alembic: command.upgrade(alembic, "head"))
    user = User(email="ada@example.com", role="user", password_hash=PASSWORD_HASH)
    with sync_session(DatabaseSettings(url=postgresql.url)) as session:
        add_with_session(session, user)
    token = token_for(create_app(settings_for(postgresql.url)), user)
    variables = {"SECURITY__PRINCIPAL_CACHE_SECONDS": "0", "LOG__LEVEL": "error"} | variables
    with running_server(DATABASE_URL=postgresql.url, **variables) as base:
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx2.AsyncClient(base_url=base, headers=headers, timeout=30) as client:
            assert (await client.get(PATH)).status_code == 200
            yield client


def add_with_session(session: Session, user: User) -> None:
    session.add(user)
    session.flush()
    session.add(session_of(user))
    session.flush()
    session.expunge(user)


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["GET", pytest.param("POST", marks=pytest.mark.skipif("items" not in FEATURES, reason="creates items"))]
)
async def test_while_postgresql_restarts_callers_hear_503_and_then_all_is_well(
    own_postgresql: OwnPostgreSQL, method: str
) -> None:
    seen: Counter[int] = Counter()
    over = asyncio.Event()

    async def call() -> None:
        while not over.is_set():
            answer = await (client.get(PATH) if method == "GET" else client.post(ITEMS, json=LAMP))
            seen[answer.status_code] += 1
            if answer.status_code == 503:
                assert answer.headers["Retry-After"]
                assert answer.json()["error"]["code"] == "unavailable"
                await asyncio.sleep(0.02)

    async def more_of(status: int) -> None:
        enough = seen[status] + SEEN
        while seen[status] < enough:
            await asyncio.sleep(0.01)

    good = 200 if method == "GET" else 201
    known = {"GET": "0", "POST": "60"}  # seconds: who is known gets as far as the INSERT
    variables = {"SECURITY__PRINCIPAL_CACHE_SECONDS": known[method]}
    async with caller_of(own_postgresql, **variables) as client, asyncio.timeout(90), asyncio.TaskGroup() as callers:
        for _ in range(8):
            callers.create_task(call())
        await more_of(good)
        await asyncio.to_thread(own_postgresql.stop)
        await more_of(503)
        assert (await client.get("/openapi.json")).status_code == 200
        await asyncio.to_thread(own_postgresql.start)
        await more_of(good)
        over.set()
    assert seen.keys() == {good, 503}
    if method == "POST":
        with sync_session(DatabaseSettings(url=own_postgresql.url)) as session:
            stored = session.scalar(text("SELECT count(*) FROM items"))
        assert seen[201] <= stored <= seen[201] + 8  # of those under way at the stop, nobody knows


@pytest.mark.slow
async def test_when_slow_requests_have_all_connections_others_wait_for_so_long_and_hear_503(
    own_postgresql: OwnPostgreSQL,
) -> None:
    pool = {"DATABASE__POOL_SIZE": "2", "DATABASE__MAX_OVERFLOW": "0", "DATABASE__POOL_TIMEOUT": "0.3"}
    async with caller_of(own_postgresql, **pool) as client, asyncio.timeout(60):
        engine = sync_engine(DatabaseSettings(url=own_postgresql.url))
        with engine.begin() as connection:
            connection.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
            asked = [asyncio.create_task(client.get(PATH)) for _ in range(12)]
            done: set[asyncio.Task[httpx2.Response]] = set()
            while len(done) < 10:  # all but those that have the connections
                done = {one for one in asked if one.done()}
                await asyncio.sleep(0.02)
        engine.dispose()
        refused = [one.result() for one in done]
        assert {answer.status_code for answer in refused} == {503}
        assert all(answer.headers["Retry-After"] for answer in refused)
        assert max(answer.elapsed.total_seconds() for answer in refused) < 5
        statuses = Counter(answer.status_code for answer in await asyncio.gather(*asked))
        assert statuses == {503: 10, 200: 2}
        assert (await client.get(PATH)).status_code == 200
