"""What nginx refuses by itself, in the error shape of the app: 400, 413, 414, 429, 431."""

import re
import socket

import httpx2
import pytest

from backend.core.errors import ErrorBody
from nginx.tests.conftest import App, Nginx, StartNginx, needs

pytestmark = [pytest.mark.slow, pytest.mark.nginx]

TOKEN = "/api/v1/auth/token"
BODY_BYTES, HEADER_BYTES = 1048576, 32768  # the defaults of both sides


def check_refused(nginx: Nginx, answer: httpx2.Response, status: int, code: str) -> None:
    """It has the shape and the request's own path and id, and no app has seen the request."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    error = ErrorBody.model_validate(answer.json())
    assert (error.error.code, error.path) == (code, answer.url.path)
    assert error.request_id == answer.headers["X-Request-ID"]
    line = nginx.logged(error.request_id)
    assert (line["upstream"], line["status"]) == ("", status)
    assert (line["method"], line["path"]) == (answer.request.method, answer.url.path)


def test_a_body_above_the_limit_is_413(nginx: Nginx) -> None:
    with nginx.client() as client:
        body = b"x" * BODY_BYTES
        assert client.post("/api/v1/none", content=body).status_code == 404  # the app's: it came through
        check_refused(nginx, client.post("/api/v1/none", content=body + b"x"), 413, "content_too_large")
        chunks = (body, b"x")
        check_refused(nginx, client.post("/api/v1/none", content=iter(chunks)), 413, "content_too_large")


@needs("request_limits")
def test_both_sides_have_the_same_limits() -> None:
    settings = pytest.importorskip("backend.features.request_limits").RequestLimitsSettings()
    assert (settings.body_bytes, settings.header_bytes) == (BODY_BYTES, HEADER_BYTES)


@pytest.mark.parametrize("http2", [False, True])
def test_the_limits_are_the_app_s_own_settings(start_nginx: StartNginx, apps: list[App], http2: bool) -> None:
    nginx = start_nginx([apps[0].address], REQUEST_LIMITS__BODY_BYTES="1000", REQUEST_LIMITS__HEADER_BYTES="2000")
    with nginx.client(http2=http2) as client:
        assert client.post("/api/v1/none", content=b"x" * 1000).status_code == 404
        check_refused(nginx, client.post("/api/v1/none", content=b"x" * 1001), 413, "content_too_large")
        check_refused(nginx, client.post("/api/v1/none", content=iter([b"x" * 1001])), 413, "content_too_large")
        if not http2:  # nginx ends an HTTP/2 connection that brings a larger header, without an answer
            check_refused(nginx, client.get("/", headers={"X-Long": "x" * 2000}), 431, "headers_too_large")


@needs("request_limits")
def test_headers_that_the_app_takes_pass_and_larger_ones_are_431(nginx: Nginx) -> None:
    with nginx.client() as client:
        assert client.get("/", headers={"X-Long": "x" * (HEADER_BYTES - 1000)}).status_code == 200
        of_the_app = client.get("/", headers={"X-A": "x" * 30000, "X-B": "x" * 10000})
        assert (of_the_app.status_code, of_the_app.json()["error"]["code"]) == (431, "headers_too_large")
        check_refused(nginx, client.get("/", headers={"X-Long": "x" * HEADER_BYTES}), 431, "headers_too_large")


def test_what_is_no_request_is_refused_in_the_shape(nginx: Nginx) -> None:
    port = int(nginx.https.rsplit(":", 1)[1])
    long = "/" + "x" * 2 * HEADER_BYTES
    for line, status, code in (("GET / HTTP/1.1", 400, "bad_request"), (f"GET {long} HTTP/1.1", 414, "uri_too_long")):
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            nginx.trust.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(f"{line}\r\nConnection: close\r\n\r\n".encode())  # HTTP/1.1 wants a Host
            answer = connection.recv(65536).decode()
        head, body = answer.split("\r\n\r\n", 1)
        assert head.startswith(f"HTTP/1.1 {status} ")
        assert ErrorBody.model_validate_json(body).error.code == code


def test_a_path_cannot_break_out_of_the_error(nginx: Nginx) -> None:
    port = int(nginx.https.rsplit(":", 1)[1])
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        nginx.trust.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        request = 'TRACE /","x":"\\ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
        connection.sendall(request.encode())
        body = connection.recv(65536).decode().split("\r\n\r\n", 1)[1]
    error = ErrorBody.model_validate_json(body)
    assert (error.error.code, error.path) == ("method_not_allowed", "")


def test_too_many_requests_of_one_address_are_429(start_nginx: StartNginx, apps: list[App]) -> None:
    nginx = start_nginx([apps[0].address], RATE="1r/m", RATE_BURST="3")
    with nginx.client() as client:
        assert [client.get("/static/logo.svg").status_code for _ in range(4)] == [200] * 4
        answer = client.get("/static/logo.svg")
        check_refused(nginx, answer, 429, "too_many_requests")
        assert int(answer.headers["Retry-After"]) > 0
        assert client.get(f"{nginx.http}/live").status_code == 200  # probes are not counted
    with nginx.client(source="127.0.0.5") as another:
        assert another.get("/static/logo.svg").status_code == 200


@pytest.mark.parametrize("path", [TOKEN, "/api/v1/auth/signup", "/admin/login"])
def test_signing_in_has_a_limit_of_its_own(start_nginx: StartNginx, apps: list[App], path: str) -> None:
    nginx = start_nginx([apps[0].address], SIGN_IN_RATE="1r/m", SIGN_IN_BURST="1")
    with nginx.client() as client:
        assert 429 not in [client.post(path).status_code for _ in range(2)]
        answer = client.post(path)
        check_refused(nginx, answer, 429, "too_many_requests")
        assert int(answer.headers["Retry-After"]) > 0
        disguised = client.build_request("POST", nginx.https)
        disguised.url = disguised.url.copy_with(raw_path=re.sub("[sn]", lambda it: f"%{ord(it[0]):x}", path).encode())
        assert client.send(disguised).status_code == 429
        assert client.get("/admin/login").status_code == 200  # looking at the form is not counted


@needs("realtime")
def test_one_address_has_so_many_connections(
    start_nginx: StartNginx, apps: list[App], authorization: dict[str, str]
) -> None:
    nginx = start_nginx([apps[0].address], CONNECTIONS="1")
    with nginx.client() as client, client.stream("GET", "/api/v2/sse/stream", headers=authorization) as stream:
        assert stream.status_code == 200
        check_refused(nginx, client.get("/"), 429, "too_many_requests")
