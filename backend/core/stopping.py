"""A stop that loses nothing: told to end (SIGTERM), the app drains for a while before the server stops listening.

While it drains, `/ready` says so, every answer asks the client to open a new connection for its next request, and
endless streams end by themselves. A proxy then has no idle connection left into which it could send a request as it is
closed. Ctrl+C (SIGINT) ends the streams, too, and has no drain.
"""

import asyncio
import ctypes
import multiprocessing
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import uvicorn
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SO_ATTACH_FILTER = 26  # of Linux; Python has no name for it
KEEP_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # classic BPF, one instruction: return 0 bytes of the packet


class Stopping:
    """Whether this process is about to end. `drain`: seconds between SIGTERM and the server's own stop."""

    def __init__(self, drain: float) -> None:
        self.drain = drain
        self._event = asyncio.Event()

    @property
    def begun(self) -> bool:
        return self._event.is_set()

    async def wait(self, seconds: float) -> bool:
        """Sleep for so many seconds at most; True as soon as the process is about to end."""
        try:
            async with asyncio.timeout(seconds):
                return await self._event.wait()
        except TimeoutError:
            return False

    async def _drain(self, stop: Callable[[int, FrameType | None], Any], number: int) -> None:
        await asyncio.sleep(self.drain)
        server = getattr(stop, "__self__", None)
        alone = multiprocessing.parent_process() is None  # else other processes go on listening on the same socket
        if self.drain and alone and sys.platform == "linux" and isinstance(server, uvicorn.Server):
            await _stop_listening(server.servers)
        stop(number, None)

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Put the drain in front of what the server does at SIGTERM. A second SIGTERM cuts the drain short."""
        server, interrupted = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
        main = threading.current_thread() is threading.main_thread()
        if not (main and callable(server) and callable(interrupted)):
            yield  # nobody to hand on to, as in a test client
            return
        loop = asyncio.get_running_loop()

        def begin(number: int) -> None:
            if self.begun:
                server(number, None)
            else:
                self._event.set()
                self._end = loop.create_task(self._drain(server, number))  # kept: the loop itself would not

        def wake_the_loop(number: int, _frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(begin, number)

        def interrupt(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(self._event.set)
            interrupted(number, frame)

        signal.signal(signal.SIGTERM, wake_the_loop)
        signal.signal(signal.SIGINT, interrupt)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, server)
            signal.signal(signal.SIGINT, interrupted)


async def _stop_listening(servers: list[asyncio.Server]) -> None:
    """Take no new connection, and give each one that is there the time to bring its request.

    Closing a listening socket resets the connections that still wait in it, and the server closes accepted ones that
    have brought nothing yet: both lose requests that a proxy has sent already, and does not repeat if they are POSTs.
    So the kernel drops newcomers first (they try again, and are then refused); what has come is accepted and read.
    """
    instruction = ctypes.create_string_buffer(KEEP_NOTHING)
    program = struct.pack("HP", 1, ctypes.addressof(instruction))
    with suppress(OSError):  # a sandbox that knows no filters: then some may be lost
        for server in servers:
            for listener in server.sockets:
                listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
    for _ in range(5):  # rounds of the event loop, each of which accepts
        await asyncio.sleep(0.02)
    for server in servers:
        server.close()
    await asyncio.sleep(0.5)


class CloseWhenStopping:
    """`Connection: close` on every answer while the app drains (RFC 9112 §9.6)."""

    def __init__(self, app: ASGIApp, stopping: Stopping) -> None:
        self.app = app
        self.stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def add_header(message: Message) -> None:
            if message["type"] == "http.response.start" and self.stopping.begun:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self.app(scope, receive, add_header if scope["type"] == "http" else send)
