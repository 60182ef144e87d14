"""The records that a list shows, all pages of it, as a file that is read from the database while it is sent."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import anyio
from anyio.to_thread import run_sync
from sqlalchemy.ext.asyncio import AsyncResult
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from admin.places import Places
from backend.core.console import ConsoleView
from backend.core.console_export import FORMATS, ConsoleExported, exported
from backend.core.db import Database
from backend.core.events import emit

AT_ONCE = 2  # exports of a process, so of its connections to the database
BUSY = "Other exports are running. Try again in a minute"
CHUNK = 1000  # rows in memory
SECONDS = 1800.0  # until one that is read so slowly is cut off
PATIENCE = 5.0  # seconds to note that it was sent


def file_name(view: ConsoleView, kind: str) -> str:
    """`items-2026-01-31.csv`."""
    slug = re.sub(r"[^a-z0-9]+", "-", view.name_plural.lower()).strip("-")
    return f"{slug}-{datetime.now(UTC):%Y-%m-%d}.{kind}"


class Download(StreamingResponse):
    """Sends a file while it reads the records. Whoever hangs up ends the query; one that fails cuts the connection."""

    def __init__(self, request: Request, view: ConsoleView, kind: str, places: Places) -> None:
        self.columns = exported(view)
        chosen: Any = view.sort_query(view.matching(request), request)
        self.statement = chosen.with_only_columns(*self.columns.values()).execution_options(yield_per=CHUNK)
        self.file = FORMATS[kind](view.name_plural, list(self.columns))
        self.asked: dict[str, Any] = {"view": view.identity, "format": kind, "query": request.url.query[:2000]}
        self.places = places
        self.database: Database = request.app.state.database
        self.rows, self.complete = 0, False
        disposition = f'attachment; filename="{file_name(view, kind)}"'
        super().__init__((), media_type=self.file.media_type, headers={"Content-Disposition": disposition})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.places.taken():
            try:
                async with asyncio.timeout(SECONDS), self.database.session(reading=True, streaming=True) as session:
                    result = await session.stream(self.statement)  # what fails here is still a page that says so
                    self.body_iterator = self._pieces(result)
                    await super().__call__(scope, receive, send)
            finally:
                if self.rows or self.complete:
                    with anyio.move_on_after(PATIENCE, shield=True):
                        await self._note()

    async def _pieces(self, result: AsyncResult[Any]) -> AsyncIterator[bytes]:
        yield self.file.head()
        async for rows in result.partitions():
            piece = await run_sync(self.file.body, rows)  # the loop serves others meanwhile
            self.rows += len(rows)
            if piece:
                yield piece
        yield self.file.tail()
        self.complete = True

    async def _note(self) -> None:
        """Who took what along, in the audit log."""
        async with self.database.session() as session:
            await emit(session, ConsoleExported(**self.asked, rows=self.rows, complete=self.complete))
            await session.commit()


class Exports:
    """One per app."""

    def __init__(self) -> None:
        self.places = Places(AT_ONCE, BUSY)

    def download(self, request: Request, view: ConsoleView) -> Download:
        """`GET /{identity}/export/{csv|json|xlsx}?<the list's query>`. HTTPException where it may not be had."""
        if not view.is_open_to(request.state.principal, "export"):
            raise HTTPException(403)
        kind = request.path_params["export_type"]
        if kind not in FORMATS:
            raise HTTPException(404, f"There are exports as {', '.join(FORMATS)}, and no other")
        return Download(request, view, kind, self.places)
