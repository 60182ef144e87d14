"""Bugs, as a server that takes Sentry's envelopes gets them."""

import json
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Body, FastAPI, WebSocket
from pydantic import BaseModel, ValidationError
from starlette.types import Message

from backend import __version__
from backend.core.errors import NotFound
from backend.features import FEATURES
from backend.features.sentry.settings import SentrySettings
from backend.testing import ROOT, free_port, new_client

MakeApp = Callable[..., FastAPI]


class Letter(BaseModel):
    text: str


class Sentry:
    """What came to the envelope endpoint of project 7: https://develop.sentry.dev/sdk/data-model/envelopes/."""

    def __init__(self) -> None:
        self.items: list[tuple[str, dict[str, Any]]] = []
        self.raw = b""

        class Endpoint(BaseHTTPRequestHandler):
            def do_POST(endpoint) -> None:  # noqa: N805
                body = endpoint.rfile.read(int(endpoint.headers["Content-Length"]))
                if endpoint.headers["Content-Encoding"] == "gzip":
                    body = zlib.decompress(body, 31)
                assert endpoint.path == "/api/7/envelope/"
                assert "sentry_key=public" in endpoint.headers["X-Sentry-Auth"]
                self.take(body)
                endpoint.send_response(200)
                endpoint.end_headers()

            def log_message(endpoint, *_arguments: Any) -> None:  # noqa: N805
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Endpoint)
        self.dsn = f"http://public@127.0.0.1:{self.server.server_port}/7"

    def take(self, body: bytes) -> None:
        self.raw += body
        lines = body.split(b"\n")[1:]
        while len(lines) > 1:
            header, payload = json.loads(lines.pop(0)), lines.pop(0)
            self.items.append((header["type"], json.loads(payload)))

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [item for known, item in self.items if known == kind]


@pytest.fixture
def sentry() -> Iterator[Sentry]:
    sentry = Sentry()
    thread = threading.Thread(target=sentry.server.serve_forever)
    thread.start()
    yield sentry
    sentry.server.shutdown()
    sentry.server.server_close()
    thread.join()


@pytest.fixture
def buggy(make_app: MakeApp) -> Callable[..., FastAPI]:
    """An app with a route that fails with what it was sent."""

    def make(**variables: str) -> FastAPI:
        app = make_app(**variables)

        @app.post("/letters/{letter}")
        async def post(letter: int, content: Annotated[Letter, Body()]) -> None:
            secret = content.text
            raise LookupError(f"cannot send {secret}") from ValueError(secret)

        @app.get("/missing")
        async def missing() -> None:
            raise NotFound

        @app.websocket("/talk")
        async def talk(socket: WebSocket) -> None:
            await socket.accept()
            await socket.receive_text()
            raise LookupError

        return app

    return make


async def write(app: FastAPI) -> httpx2.Response:
    """A letter full of secrets, to an app that runs for as long as it takes."""
    headers = {"Authorization": "Bearer aaa.bbb.ccc", "X-Request-ID": "find-me", "User-Agent": "browser-of-ada"}
    async with app.router.lifespan_context(app), new_client(app, headers=headers) as client:
        assert (await client.get("/missing")).status_code == 404
        body = {"text": "hunter2 of ada@example.com"}
        return await client.post("/letters/4?token=in-the-query", json=body, cookies={"session": "cookie-secret"})


async def test_a_bug_arrives_with_its_request_id_and_without_secrets(
    buggy: Callable[..., FastAPI], sentry: Sentry
) -> None:
    answer = await write(buggy(SENTRY__DSN=sentry.dsn, ENVIRONMENT="staging"))
    assert answer.status_code == 500
    [event] = sentry.of("event")
    assert not sentry.of("transaction")
    assert (event["environment"], event["release"]) == ("staging", f"mainstay@{__version__}")
    cause, bug = event["exception"]["values"]
    assert (cause["type"], bug["type"], bug["mechanism"]["handled"]) == ("ValueError", "LookupError", False)
    assert any("test_sentry.py" in frame["abs_path"] for frame in bug["stacktrace"]["frames"])
    if "request_id" in FEATURES:
        assert event["tags"]["request_id"] == answer.headers["X-Request-ID"] == "find-me"
    secrets = "hunter2", "ada@example.com", "aaa.bbb.ccc", "cookie-secret", "in-the-query", "browser-of-ada", '"vars"'
    assert not [secret for secret in secrets if secret in sentry.raw.decode()]
    assert not {"request", "user", "breadcrumbs", "extra", "modules"} & event.keys()


async def test_a_websocket_that_breaks_arrives_and_one_that_the_caller_left_does_not(
    buggy: Callable[..., FastAPI], sentry: Sentry
) -> None:
    async def talk(*incoming: Message) -> None:
        async def receive() -> Message:
            return left.pop(0)

        async def send(_message: Message) -> None:
            pass

        left: list[Message] = [{"type": "websocket.connect"}, *incoming]
        scope = {"type": "websocket", "path": "/talk", "headers": [(b"host", b"localhost")], "query_string": b""}
        await app(scope | {"subprotocols": [], "scheme": "ws"}, receive, send)

    app = buggy(SENTRY__DSN=sentry.dsn)
    async with app.router.lifespan_context(app):
        with pytest.raises(LookupError):
            await talk({"type": "websocket.receive", "text": "hello"})
        with pytest.raises(Exception):  # noqa: B017  whatever the server makes of it
            await talk({"type": "websocket.disconnect", "code": 1000})
    assert [event["exception"]["values"][-1]["type"] for event in sentry.of("event")] == ["LookupError"]


async def test_routes_and_durations_go_there_when_asked_for(buggy: Callable[..., FastAPI], sentry: Sentry) -> None:
    await write(buggy(SENTRY__DSN=sentry.dsn, SENTRY__TRACES_SAMPLE_RATIO="1"))
    found = {one["transaction"]: one for one in sentry.of("transaction")}
    assert set(found) == {"GET /missing", "POST /letters/{letter}"}
    assert found["POST /letters/{letter}"]["contexts"]["trace"]["status"] == "internal_error"
    assert "hunter2" not in str(sentry.of("transaction"))
    assert "/letters/4" not in str(sentry.of("transaction"))


async def test_a_sentry_that_is_away_costs_requests_nothing(buggy: Callable[..., FastAPI]) -> None:
    answer = await write(buggy(SENTRY__DSN=f"http://public@127.0.0.1:{free_port()}/7"))
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal_error"


@pytest.mark.slow
def test_without_a_dsn_nothing_of_it_is_there(environment: Callable[..., None]) -> None:
    environment(SENTRY__DSN=None, DATABASE_URL="sqlite://")
    code = """
import sys
from backend.main import create_app
app = create_app()
assert not [one for one in app.state.observing.observers if "sentry" in one.__module__]
print([name for name in sys.modules if name.startswith("sentry_sdk")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "dsn", ["sentry.example.com", "https://sentry.example.com/7", "https://key@sentry.example.com"]
)
def test_a_dsn_that_is_none_is_refused(dsn: str) -> None:
    with pytest.raises(ValidationError):
        SentrySettings(dsn=dsn)
