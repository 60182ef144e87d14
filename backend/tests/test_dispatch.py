"""Requests find the route that trying one after the other would find."""

import re
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute, Match, Route, Router

from backend.core.dispatch import Dispatch, fixed_part
from backend.testing import new_client


def route(path: str, method: str = "GET") -> Route:
    async def answer(_request: Any) -> PlainTextResponse:
        return PlainTextResponse(path)

    return Route(path, answer, methods=[method])


@pytest.mark.parametrize(
    ("path", "fixed"),
    [
        ("/", ""),
        ("/live", "/live"),
        ("/items/{item_id}", "/items"),
        ("/items/{item_id}/parts/{part}", "/items"),
        ("/report.{format}", ""),
        ("/{path:path}", ""),
    ],
)
def test_the_fixed_part_ends_before_the_segment_with_the_first_parameter(path: str, fixed: str) -> None:
    assert fixed_part(route(path)) == fixed


def first_match(routes: list[BaseRoute], scope: dict[str, Any]) -> BaseRoute | None:
    return next((one for one in routes if one.matches(scope)[0] is Match.FULL), None)


def test_every_route_of_the_app_is_found_as_if_all_were_tried(make_app: Any) -> None:
    app = make_app()
    dispatch = Dispatch(app.router)
    tried = 0
    for one in app.router.routes:
        path = re.sub(r"\{[^}:]*(:[^}]*)?\}", "7", getattr(one, "path", ""))
        for below in ("", "/", "/more", "x"):
            for method in getattr(one, "methods", None) or ("GET",):
                kind = "http" if hasattr(one, "methods") else "websocket"
                scope: dict[str, Any] = {"type": kind, "path": path + below, "method": method, "headers": []}
                found = first_match(dispatch.candidates(path + below), dict(scope))
                assert found is first_match(app.router.routes, dict(scope)), (method, path + below)
                tried += found is not None
    assert tried > 100


def test_few_are_tried(make_app: Any) -> None:
    dispatch = Dispatch(make_app().router)
    assert len(dispatch.candidates("/live")) < 5
    assert len(dispatch.candidates("/no/such/path")) < 5


async def test_the_first_of_two_that_match_answers_and_later_routes_count() -> None:
    app = FastAPI()
    app.router.routes = [route("/a/{name}"), route("/a/b"), route("/a/b", "POST")]
    app.router.middleware_stack = Dispatch(app.router)
    async with new_client(app) as client:
        assert (await client.get("/a/b")).text == "/a/{name}"
        assert (await client.post("/a/b")).text == "/a/b"
        assert (await client.put("/a/b")).status_code == 405
        assert (await client.get("/a")).status_code == 404
        app.include_router(APIRouter(routes=[route("/later")]), prefix="/a")
        assert (await client.get("/a/later")).text == "/a/{name}"
        app.router.routes.insert(0, route("/a/later"))
        assert (await client.get("/a/later")).text == "/a/later"


def test_a_route_without_a_path_is_always_tried() -> None:
    router = Router(routes=[route("/a"), route("/b")])
    router.routes.append(BaseRoute())
    dispatch = Dispatch(router)
    assert [type(one) for one in dispatch.candidates("/b")] == [Route, BaseRoute]
    assert [type(one) for one in dispatch.candidates("/c")] == [BaseRoute]
