"""One line per request, with what an operator looks for; none for the probes of a healthy app."""

import httpx2
import pytest
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from backend.features.access_log import AccessLog


async def test_a_request_is_one_line(client: httpx2.AsyncClient) -> None:
    with capture_logs() as lines:
        await client.get("/api/v1/users/me?token=secret")
    (line,) = [line for line in lines if line["event"] == "request"]
    assert (line["method"], line["path"], line["status"]) == ("GET", "/api/v1/users/me", 401)
    assert line["ms"] > 0
    assert "secret" not in str(line)


@pytest.mark.parametrize(("status", "lines"), [(200, 0), (503, 1)])
async def test_a_probe_is_worth_a_line_only_when_it_fails(status: int, lines: int) -> None:
    async def probe(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status})

    scope = {"type": "http", "method": "GET", "path": "/ready", "headers": []}
    with capture_logs() as seen:
        await AccessLog(probe)(scope, _nothing, _ignore)
    assert len(seen) == lines


@pytest.mark.parametrize(
    ("answer", "status"),
    [({"type": "websocket.accept"}, 101), ({"type": "websocket.http.response.start", "status": 401}, 401)],
)
async def test_a_websocket_is_one_line_too(answer: Message, status: int) -> None:
    async def socket(scope: Scope, receive: Receive, send: Send) -> None:
        await send(answer)

    with capture_logs() as lines:
        await AccessLog(socket)({"type": "websocket", "path": "/ws", "headers": []}, _nothing, _ignore)
    assert [(line["method"], line["path"], line["status"]) for line in lines] == [("WS", "/ws", status)]


async def test_an_app_that_raises_is_logged_as_500() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError

    scope = {"type": "http", "method": "GET", "path": "/live", "headers": []}
    with capture_logs() as lines, pytest.raises(LookupError):
        await AccessLog(broken)(scope, _nothing, _ignore)
    assert lines[0]["status"] == 500


async def _nothing() -> Message:
    return {"type": "http.disconnect"}


async def _ignore(message: Message) -> None:
    pass
