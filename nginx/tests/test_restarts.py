"""Apps that stop, start again, break off and are gone, under load: what callers notice of it through nginx."""

import asyncio
import secrets
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx2
import pytest
import websockets

from backend.testing import PASSWORD, free_port
from nginx.tests.conftest import ADMIN, App, Nginx, StartNginx, needs, running_apps

pytestmark = [pytest.mark.slow, pytest.mark.nginx]

NO_LIMITS = {"RATE": "100000r/s", "RATE_BURST": "100000", "CONNECTIONS": "1000"}
ITEMS = "/api/v1/store/items"


# --- an app that takes requests and breaks off ---------------------------------------------------------------------


@contextmanager
def breaking(received: list[str]) -> Iterator[str]:
    """The address of a server that reads a request, notes its method, and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    received.append(connection.recv(65536).decode().split(" ", 1)[0])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=5)


@pytest.mark.parametrize(("method", "attempts"), [("GET", 2), ("PUT", 2), ("DELETE", 2), ("POST", 1), ("PATCH", 1)])
def test_only_what_may_be_done_twice_is_sent_twice(start_nginx: StartNginx, method: str, attempts: int) -> None:
    received: list[str] = []
    with breaking(received) as one, breaking(received) as another:
        nginx = start_nginx([one, another])
        with nginx.client() as client:
            assert client.request(method, "/", content=b"{}").status_code == 503
    assert received == [method] * attempts


def test_what_was_not_sent_yet_goes_to_another_app(start_nginx: StartNginx, apps: list[App]) -> None:
    nginx = start_nginx([f"127.0.0.1:{free_port()}", apps[0].address])
    with nginx.client() as client:
        assert [client.post("/api/v1/none").status_code for _ in range(4)] == [404] * 4


# --- load ----------------------------------------------------------------------------------------------------------


class Load:
    """Callers that ask one thing after the other, and what went wrong for them."""

    def __init__(self, nginx: Nginx, headers: dict[str, str]) -> None:
        self.nginx = nginx
        self.headers = headers
        self.prefix = secrets.token_hex(4)
        self.created: list[str] = []
        self.reads = 0
        self.failures: list[str] = []
        self.over = asyncio.Event()

    @asynccontextmanager
    async def running(self, *callers: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            for caller in callers:
                group.create_task(caller())  # type: ignore[arg-type]
            try:
                yield
            finally:
                self.over.set()

    def client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self.nginx.https, verify=self.nginx.trust, headers=self.headers, timeout=20)

    async def read(self) -> None:
        async with self.client() as client:
            while not self.over.is_set():
                await self._expect(200, client.get(ITEMS, params={"limit": 1}))
                self.reads += 1

    async def create(self) -> None:
        async with self.client() as client:
            while not self.over.is_set():
                name = f"{self.prefix}-{secrets.token_hex(8)}"
                self.created.append(name)
                await self._expect(201, client.post(ITEMS, json={"name": name, "price": "1.00"}))

    async def _expect(self, status: int, call: Awaitable[httpx2.Response]) -> None:
        try:
            answer = await call
        except httpx2.HTTPError as broken:
            self.failures.append(repr(broken))
            return
        if answer.status_code != status:
            request = answer.request
            self.failures.append(f"{request.method} {answer.status_code} {answer.text[:200]}")

    async def stored(self) -> list[str]:
        """The names of the items that are there now, of those that were created here."""
        names: list[str] = []
        cursor = None
        async with self.client() as client:
            while cursor or not names:
                query = {"q": self.prefix, "limit": "100", **({"cursor": cursor} if cursor else {})}
                page = (await client.get(ITEMS, params=query)).json()
                names += [item["name"] for item in page["items"]]
                cursor = page["next"]
        return names


class Reader:
    """A reader of the clock that comes back with the last id it saw, as browsers do."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.seconds: list[int] = []
        self.goodbyes = 0
        self.broken: list[str] = []

    async def __call__(self) -> None:
        async with self.load.client() as client:
            while not self.load.over.is_set():
                try:
                    await self._one_connection(client)
                except httpx2.HTTPError as broken:
                    self.broken.append(repr(broken))
                await asyncio.sleep(0.2)

    async def _one_connection(self, client: httpx2.AsyncClient) -> None:
        resume = {"Last-Event-ID": str(self.seconds[-1])} if self.seconds else {}
        async with client.stream("GET", "/api/v2/sse/stream", headers=resume) as answer:
            if answer.status_code != 200:
                self.broken.append(f"status {answer.status_code}")
                return
            last = ""
            async for line in answer.aiter_lines():
                if line.startswith("event:"):
                    last = line.removeprefix("event:").strip()
                if line.startswith("id:"):
                    self.seconds.append(int(line.removeprefix("id:")))
                if self.load.over.is_set():
                    return
            if last == "goodbye":
                self.goodbyes += 1
            else:
                self.broken.append(f"ended after {last!r}")


async def authorization(nginx: Nginx) -> dict[str, str]:
    async with httpx2.AsyncClient(base_url=nginx.https, verify=nginx.trust) as client:
        answer = await client.post("/api/v1/auth/token", data={"username": ADMIN, "password": PASSWORD})
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


@needs("items", "realtime")
async def test_a_stop_in_order_under_load_fails_nothing(
    start_nginx: StartNginx, database_kind: str, tmp_path: Path
) -> None:
    with running_apps(2, database_kind, tmp_path, SERVER__DRAIN_SECONDS="2", LOG__LEVEL="warning") as apps:
        nginx = start_nginx([app.address for app in apps], **NO_LIMITS)
        headers = await authorization(nginx)
        load = Load(nginx, headers)
        readers = [Reader(load) for _ in range(4)]
        address = nginx.https.replace("https:", "wss:") + "/api/v2/ws/echo"
        async with (
            websockets.connect(address, ssl=nginx.trust, additional_headers=headers) as connection,
            load.running(*[load.read] * 4, *[load.create] * 4, *readers),
        ):
            await asyncio.sleep(1.5)
            for app in apps:
                assert await asyncio.to_thread(app.stop) == 0
                await asyncio.to_thread(app.start)
                await asyncio.sleep(1.5)
            await asyncio.wait_for(connection.wait_closed(), timeout=5)
            assert connection.close_code == 1012  # RFC 6455's registry: service restart
        stored = await load.stored()
    assert load.failures == []
    assert sorted(stored) == sorted(load.created)
    assert min(load.reads, len(load.created)) > 100  # it was a load
    for reader in readers:
        assert reader.broken == []
        assert reader.goodbyes >= 1
        assert reader.seconds == list(range(reader.seconds[0], reader.seconds[-1] + 1))
        assert len(reader.seconds) >= 6


@needs("items")
async def test_an_app_that_is_killed_under_load_fails_no_get(
    start_nginx: StartNginx, database_kind: str, tmp_path: Path
) -> None:
    with running_apps(2, database_kind, tmp_path, LOG__LEVEL="warning") as apps:
        nginx = start_nginx([app.address for app in apps], **NO_LIMITS)
        load = Load(nginx, await authorization(nginx))
        async with load.running(*[load.read] * 8):
            await asyncio.sleep(1)
            for app in apps:
                assert await asyncio.to_thread(app.stop, signal.SIGKILL) == -signal.SIGKILL
                await asyncio.sleep(0.5)
                await asyncio.to_thread(app.start)
                await asyncio.sleep(1.5)
    assert load.failures == []
    assert load.reads > 100
