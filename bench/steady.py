"""Requests at a steady rate, whether or not the earlier ones have been answered: `python -m bench.steady JSON`.

The time of each runs from when it was due: a client that waits for a slow server before it asks again would not see how
long the others would have waited ("coordinated omission"). A process of its own, on another core than the server's.
"""

import asyncio
import gc
import json
import os
import selectors
import sys
import time
from contextlib import suppress
from itertools import count
from statistics import median, quantiles


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.data = b""
        self.answer = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  for the type checker
        self.transport = transport

    def ask(self, request: bytes) -> "asyncio.Future[None]":
        self.data = b""
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self.answer

    def data_received(self, data: bytes) -> None:
        self.data += data
        head, end, body = self.data.partition(b"\r\n\r\n")
        if not end:
            return
        if not head.startswith(b"HTTP/1.1 2"):
            self.answer.set_exception(RuntimeError(head.decode()))
        elif len(body) >= int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]):
            self.answer.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc or ConnectionError("the server closed the connection"))


async def asked_at(host: str, port: int, request: bytes, connections: int, rate: float, seconds: float) -> list[float]:
    """Milliseconds from when each answer was due to be asked for."""
    loop = asyncio.get_running_loop()
    opened = [(await loop.create_connection(Connection, host, port))[1] for _ in range(connections)]
    numbers, took = count(), list[float]()
    began = time.perf_counter() + 0.1

    async def asking(connection: Connection) -> None:
        for number in numbers:
            due = began + number / rate
            if due > began + seconds:
                break
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
                due = time.perf_counter()  # the connection was free: what we are late by ourselves is not the server's
            await connection.ask(request)
            took.append((time.perf_counter() - due) * 1000)
        connection.transport.close()

    await asyncio.gather(*map(asking, opened))
    return took


def main() -> None:
    gc.disable()  # its pauses would look like the server's
    with suppress(AttributeError, PermissionError):  # and so would its turns with whatever else is on its core
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    host, port, request, connections, rate, seconds = json.loads(sys.argv[1])
    # epoll wakes up at whole milliseconds, select at microseconds
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        took = runner.run(asked_at(host, port, request.encode(), connections, rate, seconds))
    json.dump([median(took), quantiles(took, n=100)[98]], sys.stdout)


if __name__ == "__main__":
    main()
