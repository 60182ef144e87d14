"""Calls to other services, against a real server that fails, hangs, says too much, and recovers."""

import asyncio
import gzip
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from backend.core.breakers import Breakers
from backend.core.config import OutsideSettings
from backend.core.outside import NotAsked, Outside, TooLarge
from backend.testing import free_port, new_client

Answer = tuple[int, dict[str, str], bytes]
FINE: Answer = (200, {}, b"fine")


class Service:
    """A server on a real port. `answers`: its next ones; then all is fine."""

    def __init__(self) -> None:
        self.url = ""
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, bytes]] = []  # method and body
        self.connections = 0
        self.at_once = self.most_at_once = 0
        self.hold = threading.Event()
        self.hold.set()
        self.drip = False
        self.lock = threading.Lock()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self.lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        self.asked.append((handler.command, body))
        self.hold.wait(20)
        status, headers, content = self.answers.pop(0) if self.answers else FINE
        with self.lock:
            self.at_once -= 1
        with suppress(OSError):  # the caller was tired of waiting
            handler.send_response(status)
            for name, value in headers.items():
                handler.send_header(name, value)
            handler.send_header("Content-Length", str(len(content)))
            handler.end_headers()
            for byte in content:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()
                if self.drip:
                    time.sleep(0.05)


@pytest.fixture
def service() -> Iterator[Service]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            running.connections += 1

        def do_GET(self) -> None:
            running.answer(self)

        do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Tests are quiet."""

    running = Service()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    running.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield running
    running.hold.set()
    server.shutdown()
    thread.join(5)
    server.server_close()


@asynccontextmanager
async def calling(**settings: Any) -> AsyncIterator[tuple[httpx2.AsyncClient, Breakers]]:
    breakers = Breakers()
    outside = Outside(OutsideSettings(**settings), breakers)
    async with outside.client() as client:
        yield client, breakers
    await outside.close()


async def test_what_may_be_repeated_is_until_the_service_is_well_again(service: Service) -> None:
    async with calling() as (client, _):
        service.answers = [(503, {}, b""), (502, {}, b"")]
        assert (await client.get(service.url)).text == "fine"
        service.answers = [(429, {}, b"")]
        assert (await client.put(service.url, content=b"body")).text == "fine"
    assert service.asked == [("GET", b"")] * 3 + [("PUT", b"body")] * 2


async def test_a_post_is_sent_once(service: Service) -> None:
    service.answers = [(503, {}, b"away")]
    async with calling() as (client, _):
        answer = await client.post(service.url, json={})
    assert (answer.status_code, answer.text, len(service.asked)) == (503, "away", 1)


async def test_the_last_answer_is_returned_when_all_tries_are_used_up(service: Service) -> None:
    service.answers = [(503, {}, str(number).encode()) for number in range(5)]
    async with calling(tries=2) as (client, _):
        answer = await client.get(service.url)
    assert (answer.status_code, answer.text) == (503, "1")


async def test_a_bug_of_theirs_is_not_asked_for_again(service: Service) -> None:
    service.answers = [(500, {}, b"")]
    async with calling() as (client, _):
        assert (await client.get(service.url)).status_code == 500
    assert len(service.asked) == 1


@pytest.mark.slow
async def test_retry_after_is_obeyed(service: Service) -> None:
    service.answers = [(429, {"Retry-After": "1"}, b"")]
    began = time.monotonic()
    async with calling() as (client, _):
        assert (await client.get(service.url)).text == "fine"
    assert time.monotonic() - began >= 1


@pytest.mark.parametrize("wait", ["3600", "Wed, 21 Oct 2099 07:28:00 GMT"])
async def test_nobody_waits_longer_than_there_is_time(service: Service, wait: str) -> None:
    service.answers = [(503, {"Retry-After": wait}, b"")]
    async with calling() as (client, _):
        answer = await client.get(service.url)
    assert (answer.status_code, len(service.asked)) == (503, 1)


@pytest.mark.parametrize("wait", ["soon", "-1", "0", "Wed, 21 Oct 2015 07:28:00 GMT", "9" * 400])
async def test_a_retry_after_that_says_nothing_does_no_harm(service: Service, wait: str) -> None:
    service.answers = [(503, {"Retry-After": wait}, b"")]
    async with calling() as (client, _):
        assert (await client.get(service.url)).status_code in {200, 503}


@pytest.mark.slow
async def test_a_service_that_hangs_costs_so_much_time_and_no_more(service: Service) -> None:
    service.hold.clear()
    async with calling(timeout=0.2, tries=2) as (client, _), asyncio.timeout(10):
        with pytest.raises(httpx2.ReadTimeout, match="OUTSIDE__TIMEOUT"):
            await client.get(service.url)
        assert len(service.asked) == 2
    async with calling(timeout=5, total_timeout=0.3) as (client, _), asyncio.timeout(4):
        with pytest.raises(httpx2.ReadTimeout, match="OUTSIDE__TOTAL_TIMEOUT"):
            await client.get(service.url)


async def test_so_does_one_that_answers_byte_by_byte(service: Service) -> None:
    service.drip, service.answers = True, [(200, {}, b"x" * 400)]
    async with calling(timeout=0.3, tries=1) as (client, _), asyncio.timeout(10):
        with pytest.raises(httpx2.ReadTimeout):
            await client.get(service.url)


async def test_a_service_that_keeps_failing_is_left_alone_and_asked_again_later(service: Service) -> None:
    async with calling(tries=1, breaker_failures=3, breaker_seconds=0.5) as (client, breakers):
        service.answers = [(503, {}, b"")] * 3
        for _ in range(3):
            await client.get(service.url)
        with pytest.raises(NotAsked):
            await client.get(service.url)
        assert len(service.asked) == 3
        assert list(breakers.states().values()) == ["opened"]
        async with asyncio.timeout(10):
            while breakers.states() != {f"outside:{service.url.removeprefix('http://')}": "closed"}:
                with suppress(NotAsked):
                    assert (await client.get(service.url)).text == "fine"
                await asyncio.sleep(0.05)


async def test_one_that_is_not_there_or_hangs_is_left_alone_too(service: Service) -> None:
    service.hold.clear()
    async with calling(tries=1, timeout=0.1, breaker_failures=2) as (client, _):
        for url, error in ((service.url, httpx2.ReadTimeout), (f"http://127.0.0.1:{free_port()}", httpx2.ConnectError)):
            for _ in range(2):
                with pytest.raises(error):
                    await client.get(url)
            with pytest.raises(NotAsked):
                await client.get(url)


async def test_refusals_do_not_count_as_failures(service: Service) -> None:
    async with calling(tries=1, breaker_failures=1, response_bytes=10) as (client, breakers):
        for status in (429, 500, 404):
            service.answers = [(status, {}, b"")]
            await client.get(service.url)
        service.answers = [(200, {}, b"x" * 11)]
        with pytest.raises(TooLarge):
            await client.get(service.url)
        with pytest.raises(httpx2.UnsupportedProtocol):
            await client.get("ftp://127.0.0.1/")
        assert set(breakers.states().values()) == {"closed"}


async def test_an_answer_that_is_compressed_is_refused_as_nobody_knows_its_size(service: Service) -> None:
    service.answers = [(200, {"Content-Encoding": "gzip"}, gzip.compress(bytes(10**6)))]
    async with calling(tries=1) as (client, _):
        with pytest.raises(httpx2.RemoteProtocolError):
            await client.get(service.url)


async def test_so_many_at_once_and_one_slow_service_does_not_hold_another_up(service: Service) -> None:
    service.hold.clear()
    async with calling(per_host=2) as (client, _), asyncio.timeout(10):
        waiting = [asyncio.create_task(client.get(service.url)) for _ in range(6)]
        while service.at_once < 2:
            await asyncio.sleep(0.01)
        with pytest.raises(httpx2.ConnectError):
            await client.post(f"http://127.0.0.1:{free_port()}")
        service.hold.set()
        assert {answer.text for answer in await asyncio.gather(*waiting)} == {"fine"}
    assert service.most_at_once == 2


async def test_redirects_are_not_followed_and_connections_outlive_clients(service: Service) -> None:
    breakers = Breakers()
    outside = Outside(OutsideSettings(), breakers)
    service.answers = [(302, {"Location": "http://169.254.169.254/"}, b"")]
    for status in (302, 200, 200):
        async with outside.client() as client:
            assert (await client.get(service.url)).status_code == status
    await outside.close()
    assert service.connections == 1


async def test_what_nobody_catches_is_an_outage_and_no_error_of_ours(
    make_app: Callable[..., FastAPI], service: Service
) -> None:
    app = make_app(OUTSIDE__TRIES="1", OUTSIDE__BREAKER_FAILURES="1")
    nobody = f"http://127.0.0.1:{free_port()}"

    @app.get("/call")
    async def call() -> str:
        async with app.state.outside.client() as client:
            return str((await client.get(nobody)).text)

    async with new_client(app) as client:
        for _ in range(2):  # the second one is not even tried
            answer = await client.get("/call")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
            assert answer.headers["Retry-After"]
    assert list(app.state.breakers.states().values()) == ["opened"]
    await app.state.outside.close()
