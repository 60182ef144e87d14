"""Whatever is asked, in whatever order: nobody gets what another was answered, nor less than they know of already."""

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlmodel import SQLModel

from backend.core.cache.local import Local
from backend.core.cache.payload import Payload
from backend.core.config import DatabaseSettings
from backend.core.db import sync_engine
from backend.main import create_app
from backend.testing import new_client, settings_for
from backend.tests.cached_notes import as_caller, begin_anew, cache_of, running, until

PERMISSIONS = ((), ("a",), ("a", "b"))
CALLERS = st.tuples(st.integers(1, 6), st.sampled_from(PERMISSIONS))
APP = st.integers(0, 1)
GATES = st.sampled_from(["X-Gate", "X-Gate-Before"])
READ = st.tuples(st.just("read"), APP, CALLERS, st.sampled_from(["mine", "alike", "all", "note/1"]))
STEPS = st.lists(
    st.one_of(
        READ,
        READ,
        st.tuples(st.just("together"), APP, st.lists(CALLERS, min_size=2, max_size=6)),
        st.tuples(st.just("write"), APP, CALLERS),
        st.tuples(st.just("hold"), APP, CALLERS, st.sampled_from(["mine", "alike", "all"]), GATES),
        st.tuples(st.sampled_from(["let go", "expire", "restart", "lose redis"]), APP),
    ),
    min_size=5,
    max_size=30,
)


@pytest.fixture(scope="module")
async def apps(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[FastAPI, FastAPI]]:
    """Two on one database and one Redis, as two processes would be."""
    folder = tmp_path_factory.mktemp("notes")
    url = f"sqlite:///{folder}/notes.db"
    redis = {"url": os.environ["TEST_REDIS_URL"], "prefix": folder.name + str(os.getpid())}
    first, second = (create_app(settings_for(url, redis=redis, cache={"flight_seconds": 0.1})) for _ in range(2))
    engine = sync_engine(DatabaseSettings(url=url))
    SQLModel.metadata.create_all(engine)
    engine.dispose()
    async with running(first), running(second, create=False):
        yield first, second


class Story:
    """Steps, and what is known of them: the version that each app's callers have heard of."""

    def __init__(self, apps: tuple[FastAPI, FastAPI], clients: list[httpx2.AsyncClient]) -> None:
        self.apps, self.clients = apps, clients
        self.seen = [1, 1]
        self.held: list[tuple[str, asyncio.Task[None]]] = []

    async def read(self, app: int, caller: tuple[int, tuple[str, ...]], path: str, **headers: str) -> None:
        number, permissions = caller
        least = self.seen[app]
        answer = await self.clients[app].get(f"/notes/{path}", headers=as_caller(number, *permissions) | headers)
        assert answer.status_code == 200
        note = answer.json()
        assert note["reader"] == (number if path == "mine" else 0)
        if path in ("mine", "alike"):
            assert note["permissions"] == sorted(("notes:read", *permissions))
        assert note["version"] >= least, "older than a write that this process had answered before"

    async def together(self, app: int, callers: list[tuple[int, tuple[str, ...]]]) -> None:
        await asyncio.gather(*(self.read(app, caller, "mine") for caller in callers))

    async def write(self, app: int, caller: tuple[int, tuple[str, ...]]) -> None:
        answer = await self.clients[app].post("/notes", headers=as_caller(caller[0]))
        self.seen[app] = answer.json()

    async def hold(self, app: int, caller: tuple[int, tuple[str, ...]], path: str, where: str) -> None:
        """Somebody reads and then takes their time; unless what they want is there already."""
        state, gate = self.apps[app].state, str(len(self.held))
        state.gates[gate] = asyncio.Event()
        before = state.held
        task = asyncio.create_task(self.read(app, caller, path, **{where: gate}))
        self.held.append((gate, task))
        await until(lambda: state.held > before or task.done())

    async def let_go(self, *apps: int) -> None:
        for app in apps:
            for gate in self.apps[app].state.gates.values():
                gate.set()
        await asyncio.gather(*(task for _, task in self.held if apps == (0, 1) or task.done()))

    async def step(self, name: str, app: int, *rest: Any) -> None:
        cache = cache_of(self.apps[app])
        match name:
            case "let go":
                await self.let_go(app)
            case "expire":
                cache.local.shorten(0)
            case "restart":
                cache.forget(["*"])
                cache.local = Local(cache.settings.max_bytes, cache.settings.max_entry_bytes)
            case "lose redis":
                await self.apps[app].state.redis.flushdb()
            case _:
                await getattr(self, name)(app, *rest)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
async def test_nobody_gets_what_another_may_see_nor_less_than_they_know_of(
    apps: tuple[FastAPI, FastAPI], steps: list[tuple[Any, ...]]
) -> None:
    for app in apps:
        app.state.gates = {}
        await begin_anew(app)
    async with new_client(apps[0]) as one, new_client(apps[1]) as other:
        story = Story(apps, [one, other])
        try:
            for step in steps:
                await story.step(*step)
        finally:
            await story.let_go(0, 1)


KEYS = st.sampled_from([f"key {number}" for number in range(8)])
LOCAL_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 4000), st.sampled_from(["a", "b"])),
        st.tuples(st.just("get"), KEYS),
        st.tuples(st.just("drop"), st.sampled_from(["a", "b", "*"])),
        st.tuples(st.just("shorten"), st.just(0)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(steps=LOCAL_STEPS, budget=st.integers(0, 12_000))
def test_the_budget_holds_and_what_is_kept_is_what_was_put(steps: list[tuple[Any, ...]], budget: int) -> None:
    local, model = Local(max_bytes=budget, max_entry_bytes=3000), dict[str, tuple[bytes, str]]()
    for number, step in enumerate(steps):
        match step:
            case ("put", key, size, tag):
                body = str(number).encode().ljust(size, b".")
                local.put(key, Payload(body), seconds=1000, tags=(tag,), namespace=tag)
                model[key] = (body, tag)
            case ("get", key):
                found = local.get(key)
                assert found is None or found.body == model[key][0]
            case ("drop", tag):
                local.drop_tagged([tag])
                model = {key: one for key, one in model.items() if tag not in (one[1], "*")}
            case _:
                local.shorten(0)
                model = {}
        assert all(local.get(key) is None for key in {f"key {number}" for number in range(8)} - model.keys())
        assert local.bytes == sum(one.size for one in local._entries.values()) <= budget
        assert sum(one.entries for one in local.counts.values()) == len(local)
        assert sum(one.bytes for one in local.counts.values()) == local.bytes
        assert sum(map(len, local._tagged.values())) == len(local)


def test_who_was_not_asked_for_longest_makes_room() -> None:
    size = Payload(b"x" * 1000).size + 2
    local = Local(max_bytes=2 * size, max_entry_bytes=size)
    for key in ("a", "b"):
        local.put(key, Payload(b"x" * 1000), seconds=9, tags=(), namespace="n")
    local.get("a")
    local.put("c", Payload(b"x" * 1000), seconds=9, tags=(), namespace="n")
    assert [local.get(key) is not None for key in "abc"] == [True, False, True]
    local.put("large", Payload(b"x" * 2000), seconds=9, tags=(), namespace="n")
    assert local.get("large") is None
    assert local.counts["n"].evictions == 1
