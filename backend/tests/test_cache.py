"""The cache in one process: what is kept, for whom, until when, and what a client hears of it."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import Connection, event, text
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Actor, Principal, Rank
from backend.core.cache import cached, cached_result
from backend.core.cache.keys import caller_key, request_key
from backend.core.cache.payload import Payload
from backend.core.cache.sessions import settled
from backend.core.cache.store import Wanted
from backend.core.cache.warming import warms
from backend.core.config import DatabaseSettings
from backend.core.db import sync_engine
from backend.core.principals import forget, forget_all
from backend.main import create_app
from backend.testing import BASE_URL, new_client, settings_for
from backend.tests.cached_notes import as_caller, begin_anew, cache_of, counted, running, until, who_is

MakeApp = Callable[..., FastAPI]
OF_A_REQUEST = ("x-request-id", "server-timing")
ADA, BOB = as_caller(1), as_caller(2)


@pytest.fixture(scope="module")
async def notes_app(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[FastAPI]:
    url = f"sqlite:///{tmp_path_factory.mktemp('notes')}/notes.db"
    app = create_app(settings_for(url, cache={"flight_seconds": 5}))
    engine = sync_engine(DatabaseSettings(url=url))
    SQLModel.metadata.create_all(engine)  # for what features do now and then
    engine.dispose()
    async with running(app):
        yield app


@pytest.fixture
async def notes(notes_app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    await begin_anew(notes_app)
    async with new_client(notes_app) as client:
        yield client


def kept(app: FastAPI) -> int:
    return sum(one.entries for name, one in cache_of(app).statistics().items() if name.startswith("tests."))


def executions(app: FastAPI) -> int:
    return int(app.state.executions)


async def test_the_second_answer_is_the_first_ones_bytes_and_takes_no_sql(
    notes: httpx2.AsyncClient, notes_app: FastAPI
) -> None:
    first, second = [await notes.get("/notes/all", headers=ADA) for _ in range(2)]
    assert first.status_code == second.status_code == 200
    assert first.content == second.content
    assert {**first.headers, **dict.fromkeys(OF_A_REQUEST)} == {**second.headers, **dict.fromkeys(OF_A_REQUEST)}
    assert first.json() == {"reader": 0, "permissions": [], "version": 1}
    assert executions(notes_app) == 1


async def test_each_caller_gets_their_own_unless_the_route_says_otherwise(
    notes: httpx2.AsyncClient, notes_app: FastAPI
) -> None:
    for _ in range(2):
        for number in (1, 2):
            assert (await notes.get("/notes/mine", headers=as_caller(number))).json()["reader"] == number
    assert executions(notes_app) == 2
    for permissions in ((), ("notes:write",)):
        for number in (1, 2):
            answer = await notes.get("/notes/alike", headers=as_caller(number, *permissions))
            assert answer.json()["permissions"] == sorted(("notes:read", *permissions))
    assert executions(notes_app) == 4


async def test_a_hit_is_no_way_around_the_permission(notes: httpx2.AsyncClient) -> None:
    assert (await notes.get("/notes/all", headers=ADA)).status_code == 200
    assert (await notes.get("/notes/all")).status_code == 401
    assert (await notes.get("/notes/all", headers={"X-Caller": "1 other"})).status_code == 403


async def test_who_writes_sees_it_at_once_and_so_do_all_others(notes: httpx2.AsyncClient) -> None:
    for path in ("/notes/mine", "/notes/all", "/notes/note/1"):
        for headers in (ADA, BOB):
            before = (await notes.get(path, headers=headers)).json()["version"]
        written = (await notes.post("/notes", headers=ADA)).json()
        assert written == before + 1
        for headers in (ADA, BOB):
            assert (await notes.get(path, headers=headers)).json()["version"] == written


async def test_what_is_rolled_back_invalidates_nothing(notes: httpx2.AsyncClient, notes_app: FastAPI) -> None:
    await notes.get("/notes/all", headers=ADA)
    assert (await notes.post("/notes?fail=true", headers=ADA)).status_code == 404
    assert (await notes.get("/notes/all", headers=ADA)).json()["version"] == 1
    assert executions(notes_app) == 1


async def test_a_tag_with_a_parameter_drops_that_entry_alone(notes: httpx2.AsyncClient, notes_app: FastAPI) -> None:
    for _ in range(2):
        for number in (1, 2):
            await notes.get(f"/notes/note/{number}", headers=ADA)
    assert executions(notes_app) == 2
    await notes.post("/notes", headers=ADA)
    versions = [(await notes.get(f"/notes/note/{number}", headers=ADA)).json()["version"] for number in (1, 2)]
    assert versions == [2, 1]


async def test_a_slow_reader_leaves_nothing_outdated_behind_and_nobody_joins_it(
    notes: httpx2.AsyncClient, notes_app: FastAPI
) -> None:
    gate = notes_app.state.gates["slow"] = asyncio.Event()
    slow = asyncio.create_task(notes.get("/notes/all", headers=ADA | {"X-Gate": "slow"}))
    await until(lambda: notes_app.state.held == 1)
    assert (await notes.post("/notes", headers=ADA)).json() == 2
    assert (await notes.get("/notes/all", headers=ADA)).json()["version"] == 2
    gate.set()
    assert (await slow).json()["version"] == 1, "it was asked before the write"
    assert (await notes.get("/notes/all", headers=ADA)).json()["version"] == 2


async def test_what_was_read_while_the_caller_was_looked_up_is_not_what_others_get(
    notes: httpx2.AsyncClient, notes_app: FastAPI
) -> None:
    """SQLite shows a transaction what was there when it began; that one began before the write."""
    gate = notes_app.state.gates["before"] = asyncio.Event()
    slow = asyncio.create_task(notes.get("/notes/all", headers=ADA | {"X-Gate-Before": "before"}))
    await until(lambda: notes_app.state.held == 1)
    await notes.post("/notes", headers=ADA)
    gate.set()
    assert (await slow).json()["version"] == 2
    assert (await notes.get("/notes/all", headers=ADA)).json()["version"] == 2


async def test_those_who_wait_hold_no_connection(make_app: MakeApp) -> None:
    """In memory there is one: who computes could not have it."""
    app = make_app(CACHE__FLIGHT_SECONDS="5")
    async with running(app) as client:
        gate = app.state.gates["go"] = asyncio.Event()
        headers = ADA | {"X-Gate-Before": "go"}
        gate.set()
        waiting = [asyncio.create_task(client.get("/notes/all", headers=headers)) for _ in range(10)]
        assert {(await one).status_code for one in waiting} == {200}
        assert executions(app) == 1


async def test_fifty_at_once_are_one_computation(notes: httpx2.AsyncClient, notes_app: FastAPI) -> None:
    gate = notes_app.state.gates["all"] = asyncio.Event()
    waiting = [asyncio.create_task(notes.get("/notes/all", headers=ADA | {"X-Gate": "all"})) for _ in range(50)]
    await until(lambda: notes_app.state.held == 1)
    gate.set()
    assert {(await one).status_code for one in waiting} == {200}
    assert executions(notes_app) == 1


async def test_those_who_wait_go_on_when_the_one_that_computes_goes_away(
    notes: httpx2.AsyncClient, notes_app: FastAPI
) -> None:
    notes_app.state.gates["never"] = asyncio.Event()
    first = asyncio.create_task(notes.get("/notes/all", headers=ADA | {"X-Gate": "never"}))
    await until(lambda: notes_app.state.held == 1)
    second = asyncio.create_task(notes.get("/notes/all", headers=BOB))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).json()["version"] == 1


async def test_nobody_waits_longer_than_the_bound(make_app: MakeApp) -> None:
    app = make_app(CACHE__FLIGHT_SECONDS="0.05", DATABASE_URL="sqlite://")
    async with running(app) as client:
        app.state.gates["never"] = asyncio.Event()
        await client.get("/notes/mine", headers=ADA)  # a second connection is not to be had: memory has one
        cache = cache_of(app)

        wanted = Wanted(key="slow", tags=(), seconds=9, namespace="test")

        async def never() -> Payload:
            await app.state.gates["never"].wait()
            return Payload(b"late")

        async def quick() -> Payload:
            return Payload(b"quick")

        first = asyncio.create_task(cache.get(wanted, never))
        await asyncio.sleep(0)
        assert (await cache.get(wanted, quick)).body == b"quick"
        app.state.gates["never"].set()
        assert (await first).body == b"late"


class Slow:
    """A computation under one key: who leads it hangs, until `gate` is opened."""

    def __init__(self, app: FastAPI) -> None:
        self.cache = cache_of(app)
        self.gate, self.helped = asyncio.Event(), 0
        self.failure: Exception | None = None

    def get(self, compute: Callable[[], Awaitable[Payload]]) -> asyncio.Task[Payload]:
        wanted = Wanted(key="slow", tags=("slow",), seconds=9, namespace="test")
        return asyncio.create_task(self.cache.get(wanted, compute))

    async def hang(self) -> Payload:
        await self.gate.wait()
        return Payload(b"late")

    async def help(self) -> Payload:
        self.helped += 1
        await asyncio.sleep(0.05)
        if self.failure:
            raise self.failure
        return Payload(b"in time")


@pytest.mark.parametrize("cancelled", ["nobody", "at once", "while another helps"])
async def test_one_of_those_who_wait_computes_for_them_all(make_app: MakeApp, cancelled: str) -> None:
    app = make_app(CACHE__FLIGHT_SECONDS="60" if cancelled == "at once" else "1")
    async with running(app):
        slow = Slow(app)
        first = slow.get(slow.hang)
        await asyncio.sleep(0)
        waiting = [slow.get(slow.help) for _ in range(50)]
        await asyncio.sleep(0)
        if cancelled != "at once":
            await until(lambda: slow.helped > 0)
        if cancelled != "nobody":
            first.cancel()
        assert {(await one).body for one in waiting} == {b"in time"}
        assert slow.helped == 1
        assert (await slow.get(slow.hang)).body == b"in time", "it is kept"
        slow.gate.set()
        if cancelled == "nobody":
            assert (await first).body == b"late"


async def test_when_who_helps_fails_the_others_try_for_themselves_and_hear_what_comes_of_it(make_app: MakeApp) -> None:
    app = make_app(CACHE__FLIGHT_SECONDS="0.3")
    async with running(app):
        slow = Slow(app)
        slow.failure = TimeoutError("the database is slow")
        first = slow.get(slow.hang)
        await asyncio.sleep(0)
        async with asyncio.timeout(20):  # and not 0.3 seconds more for each
            found = await asyncio.gather(*(slow.get(slow.help) for _ in range(200)), return_exceptions=True)
        assert {type(one) for one in found} == {TimeoutError}
        slow.gate.set()
        assert (await first).body == b"late"


async def test_what_helps_is_outdated_too(make_app: MakeApp) -> None:
    app = make_app(CACHE__FLIGHT_SECONDS="0.05")
    async with running(app):
        slow = Slow(app)
        first = slow.get(slow.hang)
        await asyncio.sleep(0)
        second = slow.get(slow.help)
        await until(lambda: slow.helped > 0)
        slow.cache.invalidate(["slow"])
        assert (await second).body == b"in time"
        slow.gate.set()
        assert (await first).body == b"late"
        assert (await slow.get(slow.help)).body == b"in time"
        assert slow.helped == 2, "nothing was kept"


async def test_a_session_that_only_reads_need_not_open_for_the_cache(make_app: MakeApp) -> None:
    app = make_app()
    async with running(app):
        session = app.state.database.reading_session()
        assert await settled(session)
        assert not session.opened


async def test_errors_and_cookies_are_for_one_caller_only(notes: httpx2.AsyncClient, notes_app: FastAPI) -> None:
    for _ in range(2):
        assert (await notes.get("/notes/all?q=away", headers=ADA)).status_code == 404
    for number in (1, 2, 1):
        answer = await notes.get("/notes/all?q=cookie", headers=as_caller(number))
        assert f"secret={number}" in answer.headers["set-cookie"]
    for _ in range(2):
        for said in ("no-store", "No-Store"):
            assert (await notes.get(f"/notes/all?q={said}", headers=ADA)).headers["Cache-Control"] == said
        assert (await notes.get("/notes/all?q=partly", headers=ADA)).status_code == 203
    assert kept(notes_app) == 0


@pytest.mark.parametrize("control", ["no-store", "no-cache", "No-Cache", "max-age=0, NO-STORE"])
async def test_a_client_may_refuse_what_is_cached(notes: httpx2.AsyncClient, notes_app: FastAPI, control: str) -> None:
    for _ in range(2):
        assert (await notes.get("/notes/all", headers=ADA | {"Cache-Control": control})).status_code == 200
    assert executions(notes_app) == 2
    assert kept(notes_app) == 0


async def test_the_headers_say_how_to_keep_it(notes: httpx2.AsyncClient) -> None:
    mine, shared = [await notes.get(f"/notes/{name}", headers=ADA) for name in ("mine", "all")]
    assert mine.headers["Cache-Control"] == "private, no-cache"
    assert shared.headers["Cache-Control"] == "private, max-age=5"
    assert shared.headers["X-Asked"] == "nothing"
    for answer in (mine, shared):
        assert "Authorization" in answer.headers["Vary"]
        assert answer.headers["ETag"].startswith('"')
        assert answer.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}', "*"])
async def test_a_client_that_has_it_gets_304(notes: httpx2.AsyncClient, form: str) -> None:
    first = await notes.get("/notes/all", headers=ADA)
    again = await notes.get("/notes/all", headers=ADA | {"If-None-Match": form.format(first.headers["ETag"])})
    assert (again.status_code, again.content) == (304, b"")
    for name in ("ETag", "Cache-Control", "Vary"):
        assert again.headers[name] == first.headers[name]
    await notes.post("/notes", headers=ADA)
    changed = await notes.get("/notes/all", headers=ADA | {"If-None-Match": first.headers["ETag"]})
    assert (changed.status_code, changed.json()["version"]) == (200, 2)
    assert changed.headers["ETag"] != first.headers["ETag"]


def key_of(query: bytes, path: str = "/p") -> str | None:
    return request_key({"query_string": query, "path": path})


def test_the_order_of_a_query_does_not_matter_that_of_a_repeated_name_does() -> None:
    assert key_of(b"a=1&b=2") == key_of(b"b=2&a=1")
    assert key_of(b"a=1&a=2") != key_of(b"a=2&a=1")
    assert key_of(b"a=1&%61=2") != key_of(b"%61=2&a=1")
    assert key_of(b"q=1?", "/x") != key_of(b"", "/x?q=1")
    assert key_of(b"q=" + b"x" * 600) is None


def test_a_caller_is_more_than_a_number() -> None:
    alike = [who_is(1, "a", "b"), who_is(1, "b", "a")]
    assert len({caller_key("principal", one) for one in alike}) == 1
    different = [who_is(1), who_is(2), who_is(1, "a"), who_is(1, "a b"), who_is(1, "a", "b")]
    assert len({caller_key("principal", one) for one in different}) == 5
    assert len({caller_key("permissions", one) for one in different}) == 4


ANOTHER = Principal(
    id=9,
    name="another",
    rank=Rank.ADMIN,
    permissions=frozenset({"a"}),
    via="api_key",
    credential=7,
    narrowed=True,
    signed_in_at=datetime(2026, 1, 1, tzinfo=UTC),
    actor=Actor(id=8, name="hands"),
)


@pytest.mark.parametrize("name", [one.name for one in fields(Principal)])
def test_all_that_is_known_about_a_caller_is_in_the_key(name: str) -> None:
    caller = who_is(1)
    other = replace(caller, **{name: getattr(ANOTHER, name)})
    assert other != caller
    assert caller_key("principal", other) != caller_key("principal", caller)
    told = name in {"rank", "permissions"}
    assert (caller_key("permissions", other) != caller_key("permissions", caller)) == told


def test_routes_that_could_not_be_cached_safely_are_refused_at_import() -> None:
    async def nobody() -> int:
        return 1

    async def untyped(session: Any):  # type: ignore[no-untyped-def]
        return 1

    with pytest.raises(TypeError, match="take the caller"):
        cached(seconds=1)(nobody)
    with pytest.raises(TypeError, match="what it returns"):
        cached(seconds=1, vary="shared")(untyped)
    with pytest.raises(TypeError, match="declared type"):
        cached_result(seconds=1)(untyped)


def test_every_cached_route_is_a_get_with_the_response_model_of_its_function(make_app: MakeApp) -> None:
    app = make_app()
    from backend.tests.cached_notes import add_notes

    routes = [one for one in iter_route_contexts(add_notes(app).routes) if hasattr(one.endpoint, "cached")]
    assert len(routes) >= 4
    for one in routes:
        route: Any = one.original_route
        assert one.methods == {"GET"}, one.path
        assert route.response_model == inspect.signature(route.endpoint).return_annotation, one.path
        assert route.status_code in (None, 200), one.path
        assert not (route.response_model_include or route.response_model_exclude), one.path
        assert not (route.response_model_exclude_unset or route.response_model_exclude_none), one.path


async def test_results_of_services_are_kept_by_their_arguments(notes: httpx2.AsyncClient, notes_app: FastAPI) -> None:
    database = notes_app.state.database
    async with database.session(reading=True) as session:
        first = await counted(session, at_least=1)
        assert await counted(session, at_least=1) == first
        assert (await counted(session)).reader == 0
    assert cache_of(notes_app).statistics()["tests.counted"].entries == 2
    await notes.post("/notes", headers=ADA)
    async with database.session(reading=True) as session:
        assert (await counted(session, at_least=1)).version == 2


async def test_a_session_that_may_write_sees_its_own_writes_and_keeps_them_to_itself(
    notes: httpx2.AsyncClient, notes_app: FastAPI
) -> None:
    database = notes_app.state.database
    async with database.session(reading=True) as session:
        assert (await counted(session)).version == 1
    async with database.session() as session:
        await session.exec(text("UPDATE notes SET version = 7"))
        assert (await counted(session)).version == 7
        await session.rollback()
    async with database.session(reading=True) as session:
        assert (await counted(session)).version == 1


@contextmanager
def losing_the_answer_to_a_commit(app: FastAPI) -> Iterator[None]:
    engine = app.state.database.engine.sync_engine

    def lose(connection: Connection) -> None:
        connection.exec_driver_sql("COMMIT")
        raise ConnectionResetError

    event.listen(engine, "commit", lose)
    try:
        yield
    finally:
        event.remove(engine, "commit", lose)


async def test_what_was_stored_is_seen_though_the_answer_to_the_commit_was_lost(
    notes: httpx2.AsyncClient, notes_app: FastAPI
) -> None:
    assert (await notes.get("/notes/all", headers=ADA)).json()["version"] == 1
    with losing_the_answer_to_a_commit(notes_app):
        assert (await notes.post("/notes", headers=ADA)).status_code == 503
    assert (await notes.get("/notes/all", headers=ADA)).json()["version"] == 2


@pytest.mark.parametrize("change", [lambda session: forget(session, 1), forget_all], ids=["one", "all"])
async def test_a_caller_is_looked_up_again_though_the_answer_to_the_commit_was_lost(
    notes: httpx2.AsyncClient, notes_app: FastAPI, change: Callable[[AsyncSession], None]
) -> None:
    principals = notes_app.state.principals
    principals.put("known", who_is(1), generation=principals.generation)
    async with notes_app.state.database.session() as session:
        await session.exec(text("UPDATE notes SET version = 1"))
        change(session)
        with losing_the_answer_to_a_commit(notes_app), pytest.raises(ConnectionResetError):
            await session.commit()
    assert principals.get("known") is None


async def test_switched_off_it_keeps_nothing(make_app: MakeApp) -> None:
    app = make_app(CACHE__ENABLED="false")
    async with running(app) as client:
        first, second = [await client.get("/notes/all", headers=ADA) for _ in range(2)]
        assert (first.content, executions(app)) == (second.content, 2)
        assert first.headers["ETag"] == second.headers["ETag"]


async def test_what_is_warmed_is_there_before_anybody_asks(notes: httpx2.AsyncClient, notes_app: FastAPI) -> None:
    from backend.tests.cached_notes import read_all

    await warms(read_all, "/notes/all")(notes_app)
    assert (await notes.get("/notes/all", headers=ADA)).status_code == 200
    assert executions(notes_app) == 1


async def test_what_is_warmed_behind_a_root_path_is_what_is_asked_for_there(make_app: MakeApp) -> None:
    from backend.tests.cached_notes import read_all

    app = make_app(API__ROOT_PATH="/shop")
    transport = httpx2.ASGITransport(app=app, root_path="/shop")  # as uvicorn calls an app that has a root path
    async with running(app), httpx2.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        await warms(read_all, "/notes/all")(app)
        assert (await client.get("/shop/notes/all", headers=ADA)).status_code == 200
        assert executions(app) == 1


async def test_an_app_starts_whatever_becomes_of_warming(make_app: MakeApp) -> None:
    from dataclasses import replace

    from backend.core.feature import Feature

    app, tried = make_app(), asyncio.Event()

    async def fails(_app: FastAPI) -> None:
        raise RuntimeError

    async def works(_app: FastAPI) -> None:
        tried.set()

    feature = Feature(name="warm", summary="Warms", warm=(fails, works))
    app.state.registry = replace(app.state.registry, features=(*app.state.registry.features, feature))
    async with app.router.lifespan_context(app), asyncio.timeout(10):
        await tried.wait()
