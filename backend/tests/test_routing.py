"""What skips FastAPI's dependencies skips none that matters."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends, FastAPI
from fastapi.security import SecurityScopes
from starlette.requests import HTTPConnection

from backend.core.auth import Caller, InPerson, Principal, requires
from backend.core.cache import cached
from backend.core.cache.shortcut import CachedAPIRoute
from backend.core.db import Session
from backend.core.feature import Feature
from backend.core.read_session import ReadSession
from backend.core.routing import ShortRoute
from backend.features import FEATURES
from backend.testing import ROOT
from backend.tests.cached_notes import as_caller, read_all, running

SCOPES = requires("a:read", "b:read")


async def of_a_caller(caller: Annotated[Principal, SCOPES], session: Session, q: str = "") -> None: ...
async def of_anybody_signed_in(number: int, session: ReadSession, caller: Caller) -> None: ...
async def of_a_person(caller: InPerson, session: ReadSession) -> None: ...
async def of_more(caller: Caller, more: Annotated[str, Depends(lambda: "")]) -> None: ...
async def of_more_by_default(caller: Caller, more: str = Depends(lambda: "")) -> None: ...
async def of_nobody(session: ReadSession) -> None: ...
async def of_two(session: Session, reading: ReadSession, caller: Caller) -> None: ...


@pytest.mark.parametrize(
    ("route", "scopes"),
    [
        (of_a_caller, ["a:read", "b:read"]),
        (of_anybody_signed_in, []),
        (of_nobody, []),
        (of_a_person, None),
        (of_more, None),
        (of_more_by_default, None),
        (of_two, None),
    ],
)
def test_only_routes_of_a_caller_and_a_session_take_it(route: Any, scopes: list[str] | None) -> None:
    placed = ShortRoute("/x", route)
    assert (placed.needs.scopes.scopes if placed.needs else None) == scopes
    assert len(placed.dependant.dependencies) == (1 if route is of_nobody else 3 if route is of_two else 2)
    assert ShortRoute("/x", route, dependencies=[Depends(lambda: "")]).needs is None


@pytest.mark.skipif("items" not in FEATURES, reason="the items feature is not in this tree")
async def test_strangers_hear_nothing_about_their_mistakes(client: httpx2.AsyncClient) -> None:
    for body in ("{", "{}"):
        answer = await client.post("/api/v1/store/items", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 401


async def test_a_cached_route_asks_who_is_calling_once_whether_it_has_the_answer_or_not(
    make_app: Callable[..., FastAPI],
) -> None:
    app, asked = make_app(), []
    app.router.routes.append(CachedAPIRoute("/short", read_all))

    async def counts(connection: HTTPConnection) -> None:
        asked.append(connection)

    async with running(app) as client:
        first = Feature(name="first", summary="Is asked first", authenticators=(counts,))
        app.state.registry = replace(app.state.registry, features=(first, *app.state.registry.features))
        for _ in range(2):
            asked.clear()
            assert (await client.get("/short", headers=as_caller(1))).status_code == 200
            assert (app.state.executions, len(asked)) == (1, 1)


@cached("things", seconds=1, vary="shared")
async def with_scopes(caller: Caller, asked: SecurityScopes) -> str:
    return ""


@cached("things", seconds=1, vary="shared")
async def with_a_query(caller: Caller, q: str = "") -> str:
    return q


def test_what_is_cached_is_asked_straight_only_with_path_and_query_parameters() -> None:
    assert [CachedAPIRoute("/x", route).straight for route in (with_a_query, with_scopes)] == [True, False]


def test_in_a_process_that_serves_the_collector_skips_what_is_there_from_the_start() -> None:
    program = """
import asyncio, gc
from backend.main import COLLECT_AFTER, served_app
async def main():
    app = served_app()
    assert gc.get_freeze_count() == 0
    async with app.router.lifespan_context(app):
        assert gc.get_freeze_count() > 100_000
        assert gc.get_threshold() == COLLECT_AFTER
asyncio.run(main())
"""
    environment = {"PATH": os.environ["PATH"], "ENV_FILE": "", "DATABASE_URL": "sqlite://"}
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, check=True, timeout=120)
