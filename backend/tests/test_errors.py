"""Whatever is sent, the answer has the one error shape, and is never our fault."""

import errno
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm.exc import StaleDataError

from backend.core.errors import AppError, Conflict, PreconditionFailed, Unauthorized, Unavailable
from backend.testing import new_client

SIGNUP = "/api/v1/auth/signup"
ME = "/api/v1/users/me"
JSON = {"Content-Type": "application/json"}


def assert_shape(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert set(body) == {"error", "path", "request_id"}
    assert {"code", "message"} <= set(body["error"]) <= {"code", "message", "details"}
    assert body["error"]["code"] == code
    assert body["error"]["message"]
    return body


async def test_unknown_path(client: httpx2.AsyncClient) -> None:
    assert assert_shape(await client.get("/no/such?x=1"), 404, "not_found")["path"] == "/no/such"


async def test_wrong_method(client: httpx2.AsyncClient) -> None:
    answer = await client.delete(SIGNUP)
    assert_shape(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"] == "POST"


async def test_no_credentials(client: httpx2.AsyncClient) -> None:
    answer = await client.get(ME)
    assert_shape(answer, 401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"NaN",
        b"{}",
        b'{"email": 1}',
        b'{"email": {"a": []}}',
        b'{"email": "a@example.com", "password": null}',
        b'{"email": "a@example.com", "password": "long enough!", "extra": 1}',
        b'{"email": "a@example.com", "password": "long enough!", "full_name": "\\u0000"}',
        b'{"email": "a@example.com", "password": "long enough!", "full_name": "\\ud800"}',
        b'{"\\ud800": 1}',
        b'{"email": "a@example.com", "password": "surrogate \\ud800 in a password"}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"email": "' + b"a" * 100_000 + b'"}',
        b'{"n": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda body: repr(body[:40]),
)
async def test_bad_json_is_422_or_400(client: httpx2.AsyncClient, body: bytes) -> None:
    answer = await client.post(SIGNUP, content=body, headers=JSON)
    assert answer.status_code in (400, 422), answer.text
    assert_shape(answer, answer.status_code, "invalid" if answer.status_code == 422 else "bad_request")


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "multipart/form-data", "a/b/c", ""])
async def test_other_kinds_of_body(client: httpx2.AsyncClient, kind: str) -> None:
    answer = await client.post(SIGNUP, content=b'{"email": "a@example.com"}', headers={"Content-Type": kind})
    assert_shape(answer, 422, "invalid")


@pytest.mark.parametrize(
    "content", [b"", b"username", b"username=\x00&password=\x00", b"username=a&username=b", b"%ff"]
)
async def test_bad_forms(client: httpx2.AsyncClient, content: bytes) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await client.post("/api/v1/auth/token", content=content, headers=headers)
    assert answer.status_code in (401, 422)
    assert_shape(answer, answer.status_code, answer.json()["error"]["code"])


@pytest.mark.parametrize(
    "path", ["/%00", "/%ff", "/a%2F..%2Fb", "/" + "x" * 5000, "/static/..%2f..%2f.env", "/%0d%0aX:1"]
)
async def test_odd_paths(client: httpx2.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code in (307, 404)


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-7", "utf-16", "nonsense"])
async def test_forms_in_odd_charsets(client: httpx2.AsyncClient, charset: str) -> None:
    part = '--x\r\nContent-Disposition: form-data; name="{}"\r\n\r\n\\ud800+2AA-\r\n'
    content = part.format("username") + part.format("password") + "--x--\r\n"
    headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}"}
    answer = await client.post("/api/v1/auth/token", content=content.encode(), headers=headers)
    assert answer.status_code in (400, 401, 422), answer.text


async def test_details_name_the_field_but_do_not_repeat_the_value(client: httpx2.AsyncClient) -> None:
    answer = await client.post(SIGNUP, json={"email": "my secret", "password": ["also secret"]})
    body = assert_shape(answer, 422, "invalid")
    assert [one["field"] for one in body["error"]["details"]] == ["body.email", "body.password"]
    assert "secret" not in answer.text


class Odd(Exception):
    """What a driver raises."""

    def __init__(self, sqlstate: str | None = None, number: int = 0, sqlite_errorcode: int = 0) -> None:
        super().__init__(number)
        self.sqlstate = sqlstate
        self.sqlite_errorcode = sqlite_errorcode


RAISED: list[tuple[Exception, int, str]] = [
    (Conflict("taken", details={"field": "x"}), 409, "conflict"),
    (PreconditionFailed(), 412, "precondition_failed"),
    (Unauthorized(challenge="ApiKey"), 401, "unauthorized"),
    (Unavailable(), 503, "unavailable"),
    (StaleDataError(), 409, "conflict"),
    (DataError("", None, Odd()), 422, "invalid"),
    (DBAPIError("", None, Odd("22021")), 422, "invalid"),
    (DBAPIError("", None, Odd("57P01")), 503, "unavailable"),
    (DBAPIError("", None, Odd(), connection_invalidated=True), 503, "unavailable"),
    (OperationalError("", None, Odd(sqlite_errorcode=5)), 503, "unavailable"),
    (OperationalError("", None, Odd(number=2013)), 503, "unavailable"),
    (OperationalError("no such table: secret", None, Odd(sqlite_errorcode=1)), 500, "internal_error"),
    (OSError(errno.ENETUNREACH, "Network is unreachable"), 503, "unavailable"),
    (FileNotFoundError(errno.ENOENT, "secret"), 500, "internal_error"),
    (TimeoutError(), 503, "unavailable"),
    (PoolTimeout(), 503, "unavailable"),
    (ConnectionRefusedError(), 503, "unavailable"),
    (DBAPIError("SELECT secret", None, Odd()), 500, "internal_error"),
    (LookupError("secret"), 500, "internal_error"),
]


@pytest.mark.parametrize(("error", "status", "code"), RAISED, ids=lambda value: type(value).__name__)
async def test_whatever_a_route_raises(
    make_app: Callable[..., FastAPI], error: Exception, status: int, code: str
) -> None:
    app = make_app(LOG__LEVEL="error")

    @app.get("/raise")
    async def route() -> None:
        raise error

    async with new_client(app) as client:
        answer = await client.get("/raise")
    assert_shape(answer, status, code)
    assert "secret" not in answer.text
    assert ("Retry-After" in answer.headers) == (status == 503)
    if isinstance(error, AppError):
        assert answer.json()["error"].get("details") == error.details


async def test_an_unreachable_database_is_503(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(DATABASE_URL="postgresql://nobody@127.0.0.1:9/none", LOG__LEVEL="error")
    async with new_client(app) as client:
        form = {"username": "a@example.com", "password": "x"}
        answer = await client.post("/api/v1/auth/token", data=form)
    assert_shape(answer, 503, "unavailable")


async def test_an_error_after_the_answer_began_reaches_the_server(make_app: Callable[..., FastAPI]) -> None:
    from starlette.responses import StreamingResponse

    app = make_app(LOG__LEVEL="error")

    @app.get("/half")
    async def half() -> StreamingResponse:
        async def chunks() -> Any:
            yield b"half of "
            raise LookupError

        return StreamingResponse(chunks())

    with pytest.raises(LookupError):
        async with new_client(app) as client:
            await client.get("/half")


async def test_debugging_shows_the_traceback_and_nothing_else_does(make_app: Callable[..., FastAPI]) -> None:
    for debug in ("1", "0"):
        app = make_app(DEBUG=debug, LOG__LEVEL="error")

        @app.get("/bug")
        async def bug() -> None:
            raise LookupError("the cause")

        transport = httpx2.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.get("/bug")
        assert answer.status_code == 500
        assert ("the cause" in answer.text) == (debug == "1")
