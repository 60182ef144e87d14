"""How many SQL statements a request takes: counted on the wire, the same way for the app and for the references."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
from anyio.from_thread import start_blocking_portal
from sqlalchemy.engine import URL, make_url

from bench.load import Ask
from bench.servers import Server

REQUESTS = 20  # of which the mean is taken: what happens now and then does not count as one more each
UNENCRYPTED = (80877103, 80877104)  # SSLRequest and GSSENCRequest, which are answered with N
# Messages that run a statement: a simple query, BEGIN and COMMIT among them; the execution of a prepared one.
RUNNING = b"QE"


class Proxy:
    """Between a server and PostgreSQL, speaking its protocol 3.0; `count` grows by one for each statement."""

    server: asyncio.Server

    def __init__(self, database: URL) -> None:
        self.database = database
        self.count = 0

    async def _to_postgresql(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        port = self.database.port or 5432
        if isinstance(folder := self.database.query.get("host"), str):
            return await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.{port}")
        return await asyncio.open_connection(self.database.host, port)

    async def listen(self) -> int:
        """The port."""
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, questions = await self._to_postgresql()
        back = asyncio.create_task(_pass_on(answers, writer))
        try:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await self._read(reader, writer, questions)
        finally:
            back.cancel()
            questions.close()
            writer.close()

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, questions: asyncio.StreamWriter
    ) -> None:
        while True:  # the first message has no type
            length = await reader.readexactly(4)
            first = await reader.readexactly(int.from_bytes(length, "big") - 4)
            if int.from_bytes(first[:4], "big") not in UNENCRYPTED:
                break
            writer.write(b"N")
        questions.write(length + first)
        while True:
            head = await reader.readexactly(5)
            body = await reader.readexactly(int.from_bytes(head[1:], "big") - 4)
            self.count += head[:1] in RUNNING
            questions.write(head + body)


async def _pass_on(answers: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await answers.read(65536):
            writer.write(data)
    writer.close()  # who says good-bye waits for this


@contextmanager
def counting(database: str) -> Iterator[tuple[str, Proxy]]:
    """The URL by which to reach the database, and what counts the statements that go there."""
    proxy = Proxy(make_url(database))
    with start_blocking_portal() as portal:
        port = portal.call(proxy.listen)
        url = proxy.database.set(host="127.0.0.1", port=port).difference_update_query(["host"])
        try:
            yield url.render_as_string(hide_password=False), proxy
        finally:
            portal.call(proxy.server.close)


def statements(proxy: Proxy, server: Server, ask: Ask) -> float:
    """Statements per request, once all that is done at first is done."""
    with httpx2.Client(base_url=server.base, headers=ask.headers, timeout=30) as client:
        for number in range(REQUESTS * 2):
            if number == REQUESTS:
                before = proxy.count
            client.request(ask.method, ask.path, content=ask.body or None).raise_for_status()
    return (proxy.count - before) / REQUESTS
