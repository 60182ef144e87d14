"""What passes through nginx: TLS, HTTP/2, WebSockets, streams, addresses, ids, headers, static files."""

import secrets
import socket
import ssl
import threading
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import websockets

from backend.core.errors import ErrorBody
from nginx.tests.conftest import SECURITY_HEADERS, App, Nginx, StartNginx, eventually, needs

pytestmark = [pytest.mark.slow, pytest.mark.nginx]

STREAM = "/api/v2/sse/stream"


def app_lines(apps: list[App], request_id: str) -> list[dict[str, object]]:
    return [line for app in apps for line in app.requests() if line["request_id"] == request_id]


@pytest.mark.parametrize("http2", [False, True])
def test_pages_and_the_api_come_through_tls(nginx: Nginx, authorization: dict[str, str], http2: bool) -> None:
    with nginx.client(http2=http2) as client:
        page = client.get("/")
        assert page.status_code == 200
        assert page.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert "Server" not in page.headers or page.headers["Server"] == "nginx"  # and no version
        assert client.get("/api/v1/auth/me", headers=authorization).status_code == 200


def test_old_tls_is_refused(nginx: Nginx) -> None:
    trust = ssl.create_default_context(cafile=nginx.folder / "tls.crt")
    with pytest.warns(DeprecationWarning):
        trust.minimum_version = trust.maximum_version = ssl.TLSVersion.TLSv1_1
    trust.set_ciphers("ALL:@SECLEVEL=0")  # else this side would not even ask
    port = int(nginx.https.rsplit(":", 1)[1])
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"),
    ):
        trust.wrap_socket(plain, server_hostname="localhost")


def test_http_is_sent_to_https_and_probes_are_answered(nginx: Nginx) -> None:
    with nginx.client() as client:
        answer = client.post(f"{nginx.http}/api/v1/auth/token?next=%2Fa%20b", follow_redirects=False)
        assert answer.status_code == 308  # a POST stays one
        assert answer.headers["Location"] == f"{nginx.https}/api/v1/auth/token?next=%2Fa%20b"
        for probe in ("/live", "/ready"):
            assert client.get(f"{nginx.http}{probe}").status_code == 200


def test_redirects_of_the_app_name_the_host_and_port_of_the_caller(nginx: Nginx) -> None:
    with nginx.client() as client:
        answer = client.get("/admin", follow_redirects=False)
        assert answer.status_code in (302, 303, 307)
        assert answer.headers["Location"].startswith(f"{nginx.https}/admin")


@needs("realtime")
async def test_a_websocket_echoes(nginx: Nginx, authorization: dict[str, str]) -> None:
    address = nginx.https.replace("https:", "wss:") + "/api/v2/ws/echo"
    trust = ssl.create_default_context(cafile=nginx.folder / "tls.crt")  # a client for HTTP/2 leaves its mark on one
    async with websockets.connect(address, ssl=trust, additional_headers=authorization) as connection:
        for message in ("hello", b"\x00\xff"):
            await connection.send(message)
            assert await connection.recv() == message


def test_only_websockets_are_upgraded_to(nginx: Nginx, apps: list[App], authorization: dict[str, str]) -> None:
    """An upgrade to plain HTTP/2 behind our back would carry requests past every rule here."""
    upgrade = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk"}
    with nginx.client() as client:
        for path in ("/api/v1/auth/me", "/api/v2/ws/echo"):
            assert client.get(path, headers=authorization | upgrade).status_code in (200, 404)


@needs("realtime")
@pytest.mark.parametrize("http2", [False, True])
def test_events_arrive_as_they_are_sent(nginx: Nginx, authorization: dict[str, str], http2: bool) -> None:
    with (
        nginx.client(http2=http2) as client,
        client.stream("GET", f"{STREAM}?limit=3", headers=authorization) as answer,
    ):
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        arrivals = [time.monotonic() for line in answer.iter_lines() if line.startswith("id:")]
    assert len(arrivals) == 3
    assert arrivals[2] - arrivals[0] > 1  # they would come together, were they kept back


@needs("access_log", "request_id")
def test_a_stranger_cannot_choose_an_address(nginx: Nginx, apps: list[App]) -> None:
    spoofed = {"X-Forwarded-For": "6.6.6.6", "X-Real-IP": "6.6.6.6", "Forwarded": "for=6.6.6.6"}
    with nginx.client(source="127.0.0.5") as client:
        request_id = client.get("/status", headers=spoofed).headers["X-Request-ID"]
    assert nginx.logged(request_id)["client"] == "127.0.0.5"
    [line] = eventually(lambda: app_lines(apps, request_id))
    assert line["client"] == "127.0.0.5"


@needs("access_log", "request_id")
def test_a_proxy_that_we_trust_may_name_the_address(start_nginx: StartNginx, apps: list[App]) -> None:
    nginx = start_nginx([apps[0].address], TRUSTED_PROXIES="127.0.0.5 127.0.0.6")
    chain = {"X-Forwarded-For": "6.6.6.6, 198.51.100.7, 127.0.0.6"}  # its caller's claim, the caller, another proxy
    for source, client_address in {"127.0.0.5": "198.51.100.7", "127.0.0.7": "127.0.0.7"}.items():
        with nginx.client(source=source) as client:
            request_id = client.get("/status", headers=chain).headers["X-Request-ID"]
        assert nginx.logged(request_id)["client"] == client_address
        [line] = eventually(lambda: app_lines(apps, request_id))  # noqa: B023
        assert line["client"] == client_address


@needs("access_log", "request_id")
@pytest.mark.parametrize("given", [None, "my-own.id_1", "not sane!", "x" * 65])
def test_one_request_id_is_in_both_logs_and_in_the_answer(nginx: Nginx, apps: list[App], given: str | None) -> None:
    sane = given == "my-own.id_1"
    if given and sane:
        given += secrets.token_hex(4)
    with nginx.client() as client:
        answer = client.get("/api/v1/none?password=hunter2", headers={"X-Request-ID": given} if given else {})
    request_id = answer.headers["X-Request-ID"]
    assert request_id == answer.json()["request_id"]
    assert (request_id == given) is sane
    line = nginx.logged(request_id)
    assert (line["status"], line["method"], line["path"]) == (404, "GET", "/api/v1/none")
    [line] = eventually(lambda: app_lines(apps, request_id))
    assert line["path"] == "/api/v1/none"


def test_no_secret_of_a_request_is_in_the_logs(nginx: Nginx, authorization: dict[str, str]) -> None:
    headers = authorization | {"Referer": "https://localhost/?code=geheim", "Cookie": "session=geheim"}
    with nginx.client() as client:
        nginx.logged(client.get("/api/v1/auth/me?token=geheim", headers=headers).headers["X-Request-ID"])
    for log in ("access.log", "error.log"):
        text = (nginx.folder / log).read_text()
        assert "geheim" not in text
        assert authorization["Authorization"] not in text


@pytest.mark.parametrize("path", ["/metrics", "/%6detrics", "//metrics", "/static/../metrics", "/metrics?x=1"])
def test_metrics_are_closed(nginx: Nginx, path: str) -> None:
    port = int(nginx.https.rsplit(":", 1)[1])
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"  # a client would tidy the path up
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        nginx.trust.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
    head, body = answer.split("\r\n\r\n", 1)
    assert head.startswith("HTTP/1.1 404 ")
    error = ErrorBody.model_validate_json(body)
    assert (error.error.code, error.path) == ("not_found", path.partition("?")[0])
    assert error.request_id
    assert nginx.logged(error.request_id)["upstream"] == ""


@needs("security_headers")
def test_no_header_of_ours_is_there_twice(nginx: Nginx, authorization: dict[str, str]) -> None:
    with nginx.client() as client:
        answers = [
            client.get("/"),
            client.get("/api/v1/none"),
            client.get("/api/v1/auth/me", headers=authorization),
            client.get("/static/style.css"),
            client.get("/static/style.css"),  # this time from the cache
            client.get("/static/none.css"),
            client.get("/metrics"),
            client.post("/api/v1/auth/token", content=b"x" * (1024 * 1024 + 1)),
            client.get(f"{nginx.http}/"),
        ]
    for answer in answers:
        for name in (*SECURITY_HEADERS, "X-Request-ID"):
            assert len(answer.headers.get_list(name)) == 1, (answer.url, answer.status_code, name)


@pytest.mark.parametrize(
    ("path", "cache_control"),
    [
        ("/static/style.css", "public, max-age=3600"),
        pytest.param(
            "/docs/static/swagger-ui/swagger-ui.css?v=1", "public, max-age=31536000, immutable", marks=needs("docs")
        ),
        ("/admin/statics/console.css", None),
    ],
)
def test_static_files_are_cached_and_compressed_once(
    start_nginx: StartNginx, apps: list[App], path: str, cache_control: str | None
) -> None:
    nginx = start_nginx([apps[0].address])
    with nginx.client() as client:
        answers = [client.get(path, headers={"Accept-Encoding": encoding}) for encoding in ("gzip", "identity", "gzip")]
        lines = [nginx.logged(answer.headers["X-Request-ID"]) for answer in answers]
        unchanged = client.get(path, headers={"If-None-Match": answers[1].headers["ETag"]})
    assert [line["cache"] for line in lines] == ["MISS", "HIT", "HIT"]
    assert [bool(line["upstream"]) for line in lines] == [True, False, False]
    assert [answer.headers.get("Content-Encoding") for answer in answers] == ["gzip", None, "gzip"]
    assert len({answer.content for answer in answers}) == 1
    assert unchanged.status_code == 304
    for answer in answers:
        assert answer.headers.get_list("Vary") == ["Accept-Encoding"]
        assert cache_control is None or answer.headers.get_list("Cache-Control") == [cache_control]
        assert "Server-Timing" not in answer.headers


@needs("gzip", "items")
def test_what_is_kept_for_all_is_asked_for_as_by_a_stranger(start_nginx: StartNginx) -> None:
    asked: list[Message] = []

    class App(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.headers)
            self.send_response(404)
            self.end_headers()

    with HTTPServer(("127.0.0.1", 0), App) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            nginx = start_nginx([f"127.0.0.1:{server.server_port}"])
            with nginx.client() as client:
                client.get("/static/x", headers={"Cookie": "a=b", "Authorization": "Bearer c", "Origin": "https://d"})
        finally:
            server.shutdown()
            thread.join(timeout=5)
    assert [asked[0][name] for name in ("Cookie", "Authorization", "Origin")] == [None, None, None]


def test_the_app_compresses_the_rest_and_entity_tags_stay_strong(nginx: Nginx, authorization: dict[str, str]) -> None:
    item = {"name": "Chart", "description": "depths and shallows " * 200, "price": "1.00"}
    with nginx.client() as client:
        created = client.post("/api/v1/store/items", json=item, headers=authorization)
        assert created.status_code == 201, created.text
        read = client.get(created.headers["Location"], headers=authorization | {"Accept-Encoding": "gzip"})
        assert read.headers.get_list("Content-Encoding") == ["gzip"]
        assert read.json()["description"].startswith("depths")
        headers = authorization | {"If-Match": read.headers["ETag"]}
        assert client.patch(created.headers["Location"], json={"stock": 1}, headers=headers).status_code == 200


def test_the_configuration_has_no_warning(nginx: Nginx) -> None:
    assert (nginx.folder / "error.log").read_text() == ""
    for file in nginx.folder.glob("*.conf"):
        assert "${" not in file.read_text().replace("renders ${...}", ""), file
