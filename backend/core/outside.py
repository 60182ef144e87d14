"""Calls to other services over HTTP, all through one transport, which keeps their troubles away from ours.

`async with app.state.outside.client() as client: await client.get("https://…")`: an ordinary httpx2 client, whose
failures are all `httpx2.TransportError`, also when a host is not even asked; what nobody catches is answered with 503.

- Time: `OUTSIDE__TIMEOUT` for one try, `OUTSIDE__TOTAL_TIMEOUT` for all of them, waits included.
- Tries: idempotent requests are repeated when the connection fails or the host says 429, 502, 503 or 504, with growing
  pauses, or the one that `Retry-After` names if there is time for it. The last answer is returned as it is.
- One circuit breaker per host: a host that keeps failing is left alone for a while.
- So many requests at once per host, and an answer of so many bytes at most, which are read before it is returned.

Redirects are not followed unless the client is told to; each hop then obeys the same rules. An answer may not be
compressed: a few bytes could become many.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, ExitStack, nullcontext
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any
from weakref import WeakValueDictionary

import httpx2
import stamina

from backend.core.breakers import Breakers, CircuitOpen
from backend.core.config import OutsideSettings

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # RFC 9110 §9.2.2
AWAY = frozenset({502, 503, 504})  # the host, or what is behind it, cannot answer now
BUSY = frozenset({429})  # it can, but not to us: no reason to open its circuit
RETRIED = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError)
PAUSES = {"wait_initial": 0.1, "wait_max": 1.0, "wait_jitter": 0.1}  # seconds
MOST_CIRCUITS = 100  # further hosts have none, so that callers who name hosts cannot fill the memory

# Entered around each try. They may add headers; what they yield is told the status of the answer.
watchers: list[Callable[[httpx2.Request], AbstractContextManager[Callable[[int], None]]]] = []


class NotAsked(httpx2.ConnectError):
    """The host's circuit is open: it has kept failing."""


class TooLarge(httpx2.TransportError):
    """The answer has more than `OUTSIDE__RESPONSE_BYTES`."""


class _ComeAgain(Exception):
    def __init__(self, response: httpx2.Response) -> None:
        self.response = response


def _wait_of(response: httpx2.Response) -> float:
    """The seconds of its Retry-After (RFC 9110 §10.2.3); 0 without a readable one."""
    text = response.headers.get("Retry-After", "")
    if text.isdecimal():
        return float(text[:9])
    try:
        return parsedate_to_datetime(text).timestamp() - time.time()
    except ValueError:
        return 0


class Outside(httpx2.AsyncBaseTransport):
    """The transport. One per app: connections are kept, and shared by its clients."""

    def __init__(self, settings: OutsideSettings, breakers: Breakers) -> None:
        self.settings = settings
        self._breakers = breakers
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @property
    def options(self) -> dict[str, Any]:
        """What makes a subclass of httpx2.AsyncClient one of ours."""
        timeout = httpx2.Timeout(self.settings.timeout, connect=self.settings.connect_timeout)
        return {"transport": self, "timeout": timeout}

    def client(self, **options: Any) -> httpx2.AsyncClient:
        """A client, with options of httpx2's. It costs little: make one per use, so that cookies and headers end."""
        return httpx2.AsyncClient(**self.options, **options)

    async def aclose(self) -> None:
        """Called as each client closes; the connections are kept for the next one."""

    async def close(self) -> None:
        if "_pool" in vars(self):
            await self._pool.aclose()

    @cached_property
    def _pool(self) -> httpx2.AsyncHTTPTransport:
        """Made at first use: reading the certificates of the world takes a while."""
        return httpx2.AsyncHTTPTransport(
            proxy=self.settings.proxy.get_secret_value() or None,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=30),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        await request.aread()  # so that it can be sent again
        request.headers["Accept-Encoding"] = "identity"
        try:
            async with asyncio.timeout(self.settings.total_timeout) as bound:
                return await self._repeatedly(request, bound)
        except _ComeAgain as last:
            return last.response
        except TimeoutError:
            raise httpx2.ReadTimeout("No answer within OUTSIDE__TOTAL_TIMEOUT", request=request) from None
        except CircuitOpen:
            raise NotAsked("It has kept failing and is left alone for a while", request=request) from None

    async def _repeatedly(self, request: httpx2.Request, bound: asyncio.Timeout) -> httpx2.Response:
        def again(error: Exception) -> bool | float:
            if not isinstance(error, _ComeAgain):
                return isinstance(error, RETRIED)
            wait = _wait_of(error.response)
            in_time = wait < (bound.when() or 0) - asyncio.get_running_loop().time()
            return in_time and (wait if wait > 0 else True)

        attempts = self.settings.tries if request.method in IDEMPOTENT else 1
        async for attempt in stamina.retry_context(on=again, attempts=attempts, timeout=None, **PAUSES):
            with attempt:
                return await self._once(request)
        raise AssertionError  # the loop returns or raises

    async def _once(self, request: httpx2.Request) -> httpx2.Response:
        host = request.url.netloc.decode("ascii")
        turn = self._turns.setdefault(host, asyncio.Semaphore(self.settings.per_host))
        async with turn, await self._circuit(host):
            response = await (self._watched(request) if watchers else self._answer(request))
            if response.status_code in AWAY:
                raise _ComeAgain(response)
        if response.status_code in BUSY:
            raise _ComeAgain(response)
        return response

    async def _watched(self, request: httpx2.Request) -> httpx2.Response:
        with ExitStack() as stack:
            told = [stack.enter_context(watch(request)) for watch in watchers]
            response = await self._answer(request)
            for tell in told:
                tell(response.status_code)
            return response

    async def _circuit(self, host: str) -> AbstractAsyncContextManager[Any]:
        name, known = f"outside:{host}", self._breakers.states()
        if name not in known and len(known) >= MOST_CIRCUITS:
            return nullcontext()
        return await self._breakers.get(
            name,
            threshold=self.settings.breaker_failures,
            seconds=self.settings.breaker_seconds,
            harmless=(TooLarge, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError),
        )

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        """One exchange, read to its end."""
        pool = self._pool  # before the clock starts: making it takes a while
        try:
            async with asyncio.timeout(self.settings.timeout):
                response = await pool.handle_async_request(request)
                try:
                    body = await self._body(request, response)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise httpx2.ReadTimeout("No whole answer within OUTSIDE__TIMEOUT", request=request) from None
        return httpx2.Response(response.status_code, headers=response.headers, content=body, request=request)

    async def _body(self, request: httpx2.Request, response: httpx2.Response) -> bytes:
        body = bytearray()
        assert isinstance(response.stream, httpx2.AsyncByteStream)  # noqa: S101  the type says more than there is
        async for part in response.stream:
            body += part
            if len(body) > self.settings.response_bytes:
                raise TooLarge("The answer has more than OUTSIDE__RESPONSE_BYTES", request=request)
        if body and response.headers.get("Content-Encoding", "identity") != "identity":
            raise httpx2.RemoteProtocolError("The answer is compressed, which was not asked for", request=request)
        return bytes(body)
