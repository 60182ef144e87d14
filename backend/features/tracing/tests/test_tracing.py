"""Traces, as a collector in a process of its own gets them."""

import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, cast

import httpx2
import pytest
from fastapi import FastAPI, Header
from pydantic import ValidationError
from sqlalchemy import literal, literal_column
from sqlalchemy.exc import DBAPIError
from sqlmodel import select
from structlog.testing import capture_logs

from backend.core.config import Settings
from backend.core.housekeeping import regularly
from backend.core.logging import add_trace_id
from backend.core.mail import Mail, send_mail
from backend.features import FEATURES
from backend.features.tracing.middleware import Trace
from backend.features.tracing.settings import TracingSettings
from backend.features.tracing.spans import MOST_CHILDREN
from backend.testing import ROOT, free_port, new_client, wait_until_ready

MakeApp = Callable[..., FastAPI]
INTERNAL, SERVER, CLIENT = 1, 2, 3
STRANGERS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Collected:
    def __init__(self, port: int, file: Path) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.file = file

    def spans(self, **wanted: Any) -> list[dict[str, Any]]:
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        spans: list[dict[str, Any]] = [json.loads(line) for line in lines]
        return [span for span in spans if all(span.get(key) == value for key, value in wanted.items())]


@pytest.fixture
def collector(tmp_path: Path) -> Iterator[Collected]:
    port, file = free_port(), tmp_path / "spans"
    with subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("collector.py")), str(port), str(file)]
    ) as process:
        try:
            for _ in range(300):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield Collected(port, file)
        finally:
            process.kill()


@contextmanager
def server(log: Path, **variables: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A real server, whose log is in a file."""
    port = free_port()
    environment = os.environ | {"PORT": str(port), "LOG__FORMAT": "json", **variables}
    command = [sys.executable, "-m", "backend", "serve"]
    with log.open("wb") as stderr, subprocess.Popen(command, cwd=ROOT, env=environment, stderr=stderr) as process:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()


@pytest.mark.slow
async def test_one_request_is_one_trace_in_the_collector_the_log_the_answer_and_its_body(
    committed_database_url: str, collector: Collected, tmp_path: Path
) -> None:
    variables = {
        "DATABASE_URL": committed_database_url,
        "REDIS_URL": os.environ["TEST_REDIS_URL"],
        "REDIS__PREFIX": f"test-{secrets.token_hex(4)}",
        "REDIS__TIMEOUT": "10",
        "TRACING__ENDPOINT": collector.url,
        "TRACING__HEADERS": "X-Key=open sesame",
        "TRACING__SAMPLE_RATIO": "1",
    }
    form = {"username": "nobody@example.com", "password": "hunter2-hunter2"}
    log = tmp_path / "log"
    with server(log, **variables) as (base, process):
        for _ in range(2):  # connections are opened by the first one
            answer = httpx2.post(
                f"{base}/api/v1/auth/token?secret=in-the-query", data=form, headers={"traceparent": STRANGERS}
            )
        assert httpx2.get(f"{base}/live").headers.get("Trace-Id") is None
        process.terminate()  # before the batch is due: what waits is delivered at the stop
        assert process.wait(30) == 0
    assert answer.status_code == 401
    trace_id = answer.headers["Trace-Id"]
    assert trace_id == answer.json()["trace_id"]
    assert trace_id not in STRANGERS

    spans = collector.spans(trace=trace_id)
    [request] = [span for span in spans if span["kind"] == SERVER]
    assert (request["name"], request["http.route"]) == ("POST /api/v1/auth/token", "/api/v1/auth/token")
    assert (request["http.response.status_code"], request["failed"], request["parent"]) == (401, False, "")
    assert (request["path"], request["service"], request["key"]) == ("/v1/traces", "mainstay", "open sesame")
    below = [span for span in spans if span is not request]
    assert {span["parent"] for span in below} == {request["id"]}
    assert all(request["began"] <= span["began"] <= span["ended"] <= request["ended"] for span in below)
    database = committed_database_url.partition(":")[0].partition("+")[0]
    texts = [" ".join(span["db.query.text"].split()) for span in below if span["name"] == "SELECT"]
    assert any("FROM users" in text for text in texts)
    assert {span["db.system.name"] for span in below} <= {database, "redis", "mysql", "mariadb"}
    if "rate_limits" in FEATURES:
        assert [span for span in below if span["db.system.name"] == "redis"]
    assert not collector.spans(name="GET /live")

    said = log.read_text()
    lines = [json.loads(line) for line in said.splitlines() if trace_id in line]
    assert {line["trace_id"] for line in lines} == {trace_id}
    if "access_log" in FEATURES:
        assert [line["status"] for line in lines if line["event"] == "request"] == [401]
    told = collector.file.read_text()
    assert not [secret for secret in ("nobody@example", "hunter2", "in-the-query") if secret in told]


async def lived(app: FastAPI, *paths: str, **headers: str) -> list[httpx2.Response]:
    """The answers of an app that runs for as long as it takes to give them."""
    async with app.router.lifespan_context(app), new_client(app, headers=headers) as client:
        return [await client.get(path) for path in paths]


async def test_a_bug_marks_the_span_without_its_text(make_app: MakeApp, collector: Collected) -> None:
    app = make_app(TRACING__ENDPOINT=collector.url, TRACING__SAMPLE_RATIO="1")

    @app.get("/things/{thing}")
    async def thing(thing: str, x_password: Annotated[str, Header()]) -> None:
        raise LookupError(x_password)

    with capture_logs(processors=[add_trace_id]) as lines:
        [answer] = await lived(app, "/things/7", **{"X-Password": "hunter2"})
    [line] = [line for line in lines if line["event"] == "unhandled_error"]
    assert line["trace_id"] == answer.headers["Trace-Id"]
    assert (answer.status_code, answer.json()["trace_id"]) == (500, answer.headers["Trace-Id"])
    [span] = collector.spans(kind=SERVER)
    assert (span["name"], span["failed"], span["error.type"]) == ("GET /things/{thing}", True, "LookupError")
    [event] = span["events"]
    assert event["exception.type"] == "LookupError"
    assert "test_tracing.py" in event["exception.stacktrace"]
    assert "hunter2" not in str(span)


async def test_a_ratio_of_nothing_traces_nothing_yet_log_lines_have_their_id(
    make_app: MakeApp, collector: Collected
) -> None:
    app = make_app(TRACING__ENDPOINT=collector.url, TRACING__SAMPLE_RATIO="0")
    with capture_logs(processors=[add_trace_id]) as lines:
        answers = await lived(app, "/nowhere", "/api/v1/users/me")
    assert not collector.spans()
    ids = [answer.headers["Trace-Id"] for answer in answers]
    assert len({*ids}) == 2
    if "access_log" in FEATURES:
        assert [line["trace_id"] for line in lines if line["event"] == "request"] == ids


@pytest.mark.parametrize(
    ("trusted", "sampled", "spans"), [("127.0.0.0/8", "01", 1), ("127.0.0.0/8", "00", 0), ("10.0.0.0/8", "01", 0)]
)
async def test_only_a_trusted_callers_trace_is_continued(
    make_app: MakeApp, collector: Collected, trusted: str, sampled: str, spans: int
) -> None:
    app = make_app(TRACING__ENDPOINT=collector.url, TRACING__SAMPLE_RATIO="0", TRACING__TRUSTED=trusted)
    [answer] = await lived(app, "/nowhere", traceparent=STRANGERS[:-2] + sampled)
    _, trace, parent, _ = STRANGERS.split("-")
    assert (answer.headers["Trace-Id"] == trace) is (trusted == "127.0.0.0/8")
    assert len(collector.spans(trace=trace, parent=parent)) == len(collector.spans()) == spans


async def test_a_call_to_another_service_carries_the_trace_and_is_a_span(
    make_app: MakeApp, collector: Collected
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    heard: list[str] = []
    app = make_app(TRACING__ENDPOINT=collector.url, TRACING__SAMPLE_RATIO="1")
    other = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = other.sockets[0].getsockname()[1]
    nobody = free_port()

    @app.get("/asks")
    async def asks() -> int:
        async with app.state.outside.client() as client:
            with pytest.raises(httpx2.ConnectError):
                await client.post(f"http://127.0.0.1:{nobody}/")
            return int((await client.get(f"http://127.0.0.1:{port}/token-in-the-path?token=x")).status_code)

    async with other:
        [asked] = await lived(app, "/asks")
    assert asked.json() == 404
    [request] = collector.spans(kind=SERVER)
    failed, span = sorted(collector.spans(parent=request["id"]), key=lambda one: int(one["began"]))
    assert (failed["name"], failed["failed"], failed["error.type"]) == ("POST", True, "ConnectError")
    assert (span["name"], span["server.port"], span["http.response.status_code"]) == ("GET", port, 404)
    assert span["failed"]
    assert f"traceparent: 00-{asked.headers['Trace-Id']}-{span['id']}-" in heard[0].lower()
    assert "token" not in str(span)


async def test_a_statement_that_fails_is_a_span_that_says_so(
    committed_database_url: str, make_app: MakeApp, collector: Collected
) -> None:
    app = make_app(DATABASE_URL=committed_database_url, TRACING__ENDPOINT=collector.url, TRACING__SAMPLE_RATIO="1")

    @app.get("/fails")
    async def fails() -> None:
        async with app.state.database.session() as session:
            await session.connection()
            with pytest.raises(DBAPIError):
                await (await session.connection()).exec_driver_sql("SELECT * FROM nowhere WHERE secret = 'hunter2'")
            await session.rollback()
            with pytest.raises(DBAPIError):
                await session.exec(select(literal_column("nothing")).where(literal("hunter2") == "x"))

    [answer] = await lived(app, "/fails")
    assert answer.status_code == 200, answer.text
    await app.state.database.close()
    [request] = collector.spans(name="GET /fails")
    assert not request["failed"]
    failed = [span for span in collector.spans(parent=request["id"]) if span["failed"]]
    assert [span["name"] for span in failed] == ["SELECT", "SELECT"]
    assert all(span["error.type"] and request["began"] <= span["began"] <= span["ended"] for span in failed)
    assert "hunter2" not in str(failed[1])


async def test_a_mail_is_in_the_trace_of_the_request_that_asked_for_it(make_app: MakeApp, collector: Collected) -> None:
    refusing = socket.create_server(("127.0.0.1", 0))
    port = refusing.getsockname()[1]
    refusing.close()  # nobody listens there
    app = make_app(
        TRACING__ENDPOINT=collector.url,
        TRACING__SAMPLE_RATIO="1",
        MAIL__BACKEND="smtp",
        MAIL__HOST="127.0.0.1",
        MAIL__PORT=str(port),
        MAIL__TLS="none",
        MAIL__RETRY_SECONDS="0.1",
    )

    @app.get("/mails")
    async def mails() -> None:
        async with app.state.database.session() as session:
            send_mail(session, Mail(to="somebody@example.com", subject="Hello", text="hunter2"))
            await session.commit()

    await lived(app, "/mails")
    [request] = collector.spans(name="GET /mails")
    [mail, *_] = collector.spans(name="send mail")
    assert (mail["trace"], mail["parent"], mail["failed"]) == (request["trace"], request["id"], True)
    assert mail["error.type"] == "NotSentYet"
    assert not [secret for secret in ("somebody", "Hello", "hunter2") if secret in str(mail)]


async def test_housekeeping_has_a_trace_of_its_own(make_app: MakeApp, collector: Collected) -> None:
    app, done = make_app(TRACING__ENDPOINT=collector.url, TRACING__SAMPLE_RATIO="1"), asyncio.Event()

    async def tidy(app: FastAPI) -> None:
        async with app.state.database.session(reading=True) as session:
            await (await session.connection()).exec_driver_sql("SELECT 7")
        done.set()
        raise ConnectionResetError("hunter2")

    often = asyncio.Event()

    async def look(_app: FastAPI) -> None:
        often.set()

    async with (
        app.router.lifespan_context(app),
        regularly(tidy, seconds=3600, failed="not_tidied")(app),
        regularly(look, seconds=1, failed="not_looked")(app),
        asyncio.timeout(20),
    ):
        await asyncio.gather(done.wait(), often.wait())
    [span] = collector.spans(kind=INTERNAL, name=f"{__name__}.tidy")
    assert (span["parent"], span["failed"]) == ("", True)
    assert span["error.type"] == "ConnectionResetError"
    assert "SELECT 7" in [one["db.query.text"] for one in collector.spans(parent=span["id"])]
    assert not [one for one in collector.spans() if one["name"].endswith(".look") or "hunter2" in str(one)]


async def test_a_request_with_thousands_of_statements_is_a_bounded_trace(
    make_app: MakeApp, collector: Collected
) -> None:
    app = make_app(TRACING__ENDPOINT=collector.url, TRACING__SAMPLE_RATIO="1")

    @app.get("/many")
    async def many() -> None:
        async with app.state.database.session() as session:
            for _ in range(MOST_CHILDREN + 5):
                await (await session.connection()).exec_driver_sql("SELECT 1")

    await lived(app, "/many")
    [span] = collector.spans(name="GET /many")
    below = collector.spans(parent=span["id"])
    assert len(below) == MOST_CHILDREN
    assert span["mainstay.spans_left_out"] >= 5
    assert {one["db.system.name"] for one in below} == {"sqlite"}


@pytest.mark.slow
async def test_a_collector_that_is_away_costs_requests_nothing(make_app: MakeApp) -> None:
    app = make_app(TRACING__ENDPOINT=f"http://127.0.0.1:{free_port()}", TRACING__SAMPLE_RATIO="1")
    answers = await lived(app, *["/nowhere"] * 20)
    assert {answer.status_code for answer in answers} == {404}


@pytest.mark.slow
async def test_a_collector_that_hangs_holds_up_the_stop_for_seconds_at_most(make_app: MakeApp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        app = make_app(TRACING__ENDPOINT=f"http://127.0.0.1:{silent.getsockname()[1]}", TRACING__SAMPLE_RATIO="1")
        began = time.monotonic()
        [answer] = await lived(app, "/nowhere")
        assert answer.status_code == 404
        assert time.monotonic() - began < 15


@pytest.mark.slow
def test_without_an_endpoint_nothing_of_it_is_there(environment: Callable[..., None]) -> None:
    environment(TRACING__ENDPOINT=None)
    code = """
import sys
from backend.main import create_app
app = create_app()
assert not [one for one in app.user_middleware if "tracing" in one.cls.__module__]
assert not [one for one in app.state.observing.observers if "tracing" in one.__module__]
# redis-py imports the API and the SDK's metrics where they are installed, and FastAPI the API
wanted = ("opentelemetry.sdk.trace", "opentelemetry.exporter", "opentelemetry.proto", "google.protobuf")
print([name for name in sys.modules if name.startswith(wanted)])
"""
    environment(DATABASE_URL="sqlite://")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_with_one_its_middleware_is_there(make_app: MakeApp) -> None:
    app = make_app(TRACING__ENDPOINT="http://127.0.0.1:4318")
    assert [one for one in app.user_middleware if one.cls is cast(Any, Trace)]


@pytest.mark.parametrize(
    "wrong", [{"endpoint": "collector:4318"}, {"headers": "no-value"}, {"trusted": "everybody"}, {"sample_ratio": 2}]
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TracingSettings(**wrong)


def test_a_secret_header_does_not_leave_in_clear() -> None:
    tracing = TracingSettings(endpoint="http://collector:4318/", headers="a=b=c, D=e")
    assert tracing.header_pairs == {"a": "b=c", "d": "e"}
    assert tracing.url == "http://collector:4318/v1/traces"
    assert [line for line in tracing.offences(Settings()) if "in clear" in line]
    whole = TracingSettings(endpoint="https://collector/v1/traces", headers="a=b")
    assert (whole.url, whole.offences(Settings())) == ("https://collector/v1/traces", [])


def test_trust_is_a_matter_of_the_address() -> None:
    tracing = TracingSettings(trusted="127.0.0.0/8")
    hosts = "127.0.0.1", "::ffff:127.0.0.1", "", "::1"
    assert [tracing.trusts(host) for host in hosts] == [True, True, False, False]
