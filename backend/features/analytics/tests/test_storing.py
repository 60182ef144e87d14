"""From memory into the database: nothing is lost but by a kill, and nothing is stored twice."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from alembic import command
from fastapi import FastAPI
from sqlalchemy import create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.commits import CommittingSession
from backend.core.db import Database, sync_url
from backend.core.models import utc_now
from backend.features import FEATURES
from backend.features.analytics.counting import FIGURES, Counts, counts_of
from backend.features.analytics.models import ApiUsage
from backend.features.analytics.storing import flush
from backend.testing import PATIENT, ROOT, free_port, new_client, run_alembic, temporary_database, wait_until_ready

MakeApp = Callable[..., FastAPI]
LIVE = ("/live", 200) if "health" in FEATURES else ("unmatched", 404)


async def stored(database: Database) -> int:
    async with database.session(reading=True) as session:
        return int((await session.exec(select(func.coalesce(func.sum(col(ApiUsage.requests)), 0)))).one())


async def asked(app: FastAPI, times: int = 5) -> None:
    async with new_client(app) as client:
        for _ in range(times):
            await client.get("/live")


@pytest.fixture
def url(database_name: str) -> Iterator[str]:
    """A migrated database of this test's own."""
    with temporary_database(database_name) as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        yield url


async def test_what_was_counted_is_stored_and_forgotten(app: FastAPI, session: AsyncSession) -> None:
    found = counts_of(app)
    found.take()
    await asked(app, 1)
    await flush(app.state.database, found)
    assert not found.waiting
    [row] = (await session.exec(select(ApiUsage))).all()
    assert (row.method, row.route, row.status, row.client, row.probe, row.requests) == (
        "GET", *LIVE, "anonymous", True, 1,
    )  # fmt: skip
    assert row.start.second == 0
    assert timedelta() <= utc_now() - row.start < timedelta(minutes=2)


async def test_several_processes_store_at_once(url: str, make_app: MakeApp) -> None:
    apps = [make_app(DATABASE_URL=url) for _ in range(3)]
    for app in apps:
        await asked(app)
    await asyncio.gather(*(flush(app.state.database, counts_of(app)) for app in apps))
    assert await stored(apps[0].state.database) == 15


async def test_it_is_stored_every_so_many_seconds_and_at_the_stop(url: str, make_app: MakeApp) -> None:
    app = make_app(DATABASE_URL=url, ANALYTICS__FLUSH_SECONDS="0.1")
    async with app.router.lifespan_context(app):
        await asked(app)
        for _ in range(200):
            if await stored(app.state.database) == 5:
                break
            await asyncio.sleep(0.02)
        assert await stored(app.state.database) == 5
    app = make_app(DATABASE_URL=url, ANALYTICS__FLUSH_SECONDS="3600")
    async with app.router.lifespan_context(app):
        await asked(app)
    engine = create_engine(sync_url(url))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT SUM(requests) FROM api_usage")).scalar() == 10
    engine.dispose()


async def test_while_the_database_is_away_counts_wait(make_app: MakeApp, tmp_path: Any) -> None:
    app = make_app(DATABASE_URL=f"sqlite:///{tmp_path}/late.db")
    database, found = app.state.database, counts_of(app)
    await asked(app)
    for _ in range(2):
        with pytest.raises(SQLAlchemyError):
            await flush(database, found)
    await asked(app, 2)
    read: dict[str, Any] = {figure.name: figure.read(app) for figure in FIGURES}
    assert read["analytics_flush_failures"] == 2
    assert read["analytics_keys_waiting"] >= 2
    async with database.engine.begin() as connection:
        await connection.run_sync(ApiUsage.metadata.create_all)
    await flush(database, found)
    assert await stored(database) == 7
    assert found.unsure is None


class LosesTheAnswer(CommittingSession):
    """Commits, and does not hear of it."""

    async def commit(self) -> None:
        await super().commit()
        raise ConnectionResetError


async def test_what_was_committed_without_an_answer_is_not_stored_twice(url: str, make_app: MakeApp) -> None:
    app = make_app(DATABASE_URL=url)
    database, found = app.state.database, counts_of(app)
    await asked(app)
    database._sessions.class_ = LosesTheAnswer
    with pytest.raises(ConnectionResetError):
        await flush(database, found)
    database._sessions.class_ = CommittingSession
    assert isinstance(found, Counts)
    assert found.unsure
    await asked(app, 1)
    await flush(database, found)
    assert await stored(database) == 6


async def test_what_is_not_known_to_be_there_is_not_stored_again_when_it_may_have_been_rolled_up(
    url: str, make_app: MakeApp
) -> None:
    app = make_app(DATABASE_URL=url)
    database, found = app.state.database, counts_of(app)
    await asked(app)
    batch = found.unsure = found.take()
    batch.counts = {(kind[0] - 60, *kind[1:]): sums for kind, sums in batch.counts.items()}  # an hour ago
    batch.tried = True
    await flush(database, found)
    assert await stored(database) == 0
    assert not found.waiting


def sum_of(url: str, path: str) -> int:
    engine = create_engine(sync_url(url))
    with engine.connect() as connection:
        statement = text("SELECT COALESCE(SUM(requests), 0) FROM api_usage WHERE route = :route")
        found = connection.execute(statement, {"route": path}).scalar()
    engine.dispose()
    return int(found or 0)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_stop_loses_nothing_and_a_kill_one_interval_at_most(url: str, how: signal.Signals) -> None:
    """A real process. Stopped, it stores what it has; killed, only what it has stored before is there."""
    port = free_port()
    interval = "3600" if how == signal.SIGTERM else "0.2"
    environment = os.environ | PATIENT | {"DATABASE_URL": url, "PORT": str(port), "ANALYTICS__FLUSH_SECONDS": interval}
    process = subprocess.Popen([sys.executable, "-m", "backend", "serve"], cwd=ROOT, env=environment)
    base = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(base, process)
        with httpx2.Client(base_url=base) as client:
            for _ in range(20):
                client.get("/api/v1/users/1")
            deadline = time.monotonic() + 10
            while how == signal.SIGKILL and sum_of(url, "/api/v1/users/{user_id}") < 20:
                assert time.monotonic() < deadline, "an interval has passed long ago"
                time.sleep(0.05)
            for _ in range(10):
                client.get("/api/v1/users/1")
        process.send_signal(how)
        process.wait(timeout=40)
    finally:
        process.kill()
        process.wait()
    found = sum_of(url, "/api/v1/users/{user_id}")
    if how == signal.SIGTERM:
        assert found == 30
    else:
        assert 20 <= found <= 30, "what was stored is there, nothing twice"
