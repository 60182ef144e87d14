"""One line per request, with what an operator looks for; none for the probes of a healthy app."""

from collections.abc import Callable

import httpx2
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs

from backend.features import FEATURES
from backend.testing import new_client

MakeApp = Callable[..., FastAPI]


async def test_a_request_is_one_line(client: httpx2.AsyncClient) -> None:
    with capture_logs() as lines:
        await client.get("/api/v1/users/me?token=secret")
    (line,) = [line for line in lines if line["event"] == "request"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/v1/users/me", 401)
    assert (line["route"], line["user"], line["sql"]) == ("/api/v1/users/me", None, 0)
    assert line["ms"] > 0
    assert "secret" not in str(line)
    if "request_id" in FEATURES:
        assert line["request_id"]


async def test_it_says_who_asked_and_what_that_cost_the_database(as_user: httpx2.AsyncClient) -> None:
    with capture_logs() as lines:
        user = (await as_user.get("/api/v1/users/me")).json()
        await as_user.patch("/api/v1/users/me", json={"full_name": "Ada"})
    first, second = [line for line in lines if line["event"] == "request"]
    assert first["user"] == second["user"] == user["id"]
    assert second["sql"] > 0
    assert second["ms"] >= second["sql_ms"] > 0


@pytest.mark.parametrize(("status", "lines"), [(200, 0), (503, 1)])
async def test_a_probe_is_worth_a_line_only_when_it_fails(make_app: MakeApp, status: int, lines: int) -> None:
    from starlette.responses import Response

    app = make_app(FEATURES_OFF="health") if "health" in FEATURES else make_app()
    app.add_route("/ready", lambda _request: Response(status_code=status))
    async with new_client(app) as client:
        with capture_logs() as seen:
            await client.get("/ready")
    assert len([line for line in seen if line["event"] == "request"]) == lines


async def test_an_app_that_raises_is_logged_as_500(make_app: MakeApp) -> None:
    app = make_app()

    @app.get("/bug")
    async def bug() -> None:
        raise LookupError

    async with new_client(app) as client:
        with capture_logs() as lines:
            await client.get("/bug")
    assert [line["status"] for line in lines if line["event"] == "request"] == [500]
