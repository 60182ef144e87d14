"""Panels (`backend/core/status.py`) read for a page, each within what is left of a time; how their blocks are drawn.

The pages that show them import `blocks.html` from `SHARED`, with `DRAWING` among their globals.
"""

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import structlog
from fastapi import FastAPI
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.charts import drawn, sparkline
from backend.core.models import utc_now
from backend.core.status import Block, Panel, Window, share

log = structlog.get_logger(__name__)

T = TypeVar("T")

PATIENCE = 3.0  # seconds for all that a page asks of the database
SHARED = Path(__file__).parent / "shared_templates"


def kind(block: object) -> str:
    """`Stats` → `stats`: the name of the macro that draws it."""
    return type(block).__name__.lower()


DRAWING = {"drawn": drawn, "sparkline": sparkline, "share": share, "kind": kind}


@dataclass(frozen=True)
class Section:
    """A panel that has been read; None: it could not be."""

    title: str
    private: bool
    blocks: Sequence[Block] | None


async def within(seconds: float, work: Awaitable[T]) -> tuple[T | None, BaseException | None]:
    """What came of it, or why nothing did: the page is for when things fail, in whatever way they do."""
    working = asyncio.ensure_future(work)
    working.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # seen, though nobody waits for it
    done, _ = await asyncio.wait({working}, timeout=seconds)  # asyncio.timeout() would wait for a frozen database
    if not done:
        working.cancel()
        return None, TimeoutError()
    error = working.exception()
    return (None, error) if error else (working.result(), None)


async def _section(app: FastAPI, panel: Panel, window: Window, seconds: float) -> Section:
    blocks, error = await within(seconds, panel.read(app, window))
    if error is not None:
        log.warning("panel_not_read", panel=panel.title, error=type(error).__name__)
    return Section(panel.title, bool(panel.permission), blocks)


async def sections_of(app: FastAPI, panels: Sequence[Panel], window: Window) -> list[Section]:
    """One after the other, each on what is left of the time: a page takes one connection, not one for each of them."""
    until = time.monotonic() + PATIENCE
    return [await _section(app, panel, window, until - time.monotonic()) for panel in panels]


async def made_by_day(session: AsyncSession, created: Any, days: int = 30) -> tuple[list[datetime], list[int]]:
    """The last days, today the last of them, and how many rows came on each, by the column that says when."""
    today = utc_now().replace(hour=0, minute=0, second=0)
    shown = [today - timedelta(days=ago) for ago in reversed(range(days))]
    day = func.date(created)
    statement = select(day, func.count()).where(col(created) >= shown[0]).group_by(day)
    found = {str(on): many for on, many in (await session.exec(statement)).all()}
    return shown, [found.get(f"{one:%Y-%m-%d}", 0) for one in shown]
