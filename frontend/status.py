"""/status: what works, what did, and for those who may see it, how the app does."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Literal

import structlog
from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import HTMLResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from backend.core.auth import Principal, console_principal
from backend.core.errors import RETRY_AFTER, Unavailable
from backend.core.feature import Registry
from backend.core.health import Report
from backend.core.limits import limit as rate_limit
from backend.core.models import utc_now
from backend.core.panels import PATIENCE, Section, sections_of, within
from backend.core.status import RANGES, Incident, Incidents, Panel, Window
from backend.core.stopping import Stopping
from frontend.site import router, templates

log = structlog.get_logger(__name__)

REFRESH = 30  # seconds after which an open page asks again, where there is no stream
LIVE = 10.0  # seconds between two events of the stream
MOST_EVENTS = 60  # ten minutes'; browsers come back by themselves
MOST_WATCHERS = 500  # streams of one process
FRESH = 5.0  # seconds for which what everybody sees is kept: strangers' reloads cost the database nothing

Limit = Annotated[int, Query(ge=1, le=MOST_EVENTS)]
Range = Annotated[Literal["1h", "24h", "7d", "90d"], Query(alias="range")]


async def _caller(request: Request) -> Principal | None:
    """Who is signed in to the console. Nobody, while the database does not say so."""
    found, error = await within(PATIENCE, console_principal(request))
    if error is not None:
        log.warning("status_without_caller", error=type(error).__name__)
    return found


def _open(sections: Sequence[Section]) -> list[Incident]:
    """What people are told is wrong, whatever the probes say."""
    blocks = (block for section in sections for block in section.blocks or () if isinstance(block, Incidents))
    return [one for block in blocks for one in block.incidents if one.resolved_at is None]


class Shown:
    """What everybody sees, kept for a moment, and for as long as the database cannot be asked."""

    def __init__(self, app: FastAPI) -> None:
        self.app = app
        self._lock = asyncio.Lock()
        self._kept: dict[str, tuple[float, list[Section]]] = {}

    async def sections(self, panels: Sequence[Panel], window: Window, *, ask: bool) -> list[Section]:
        """One request reads for all that come meanwhile. `ask`: whether there is a database to be asked."""
        async with self._lock:
            taken, sections = self._kept.get(window.name, (0.0, [Section(one.title, False, None) for one in panels]))
            if ask and (not taken or time.monotonic() - taken > FRESH):
                sections = await sections_of(self.app, panels, window)
                self._kept[window.name] = time.monotonic(), sections
            return sections


def shown_by(app: FastAPI) -> Shown:
    """This app's, made at first use."""
    if not hasattr(app.state, "status_shown"):
        app.state.status_shown = Shown(app)
    shown: Shown = app.state.status_shown
    return shown


async def _place(request: Request) -> AsyncIterator[None]:
    """One of the places for those who watch; Unavailable when all are taken."""
    state = request.app.state
    watchers = getattr(state, "status_watchers", 0)
    if watchers >= MOST_WATCHERS:
        raise Unavailable
    state.status_watchers = watchers + 1
    try:
        yield
    finally:
        state.status_watchers -= 1


@router.api_route("/status", methods=["GET", "HEAD"])
async def status(request: Request, chosen: Range = "24h") -> HTMLResponse:
    """Whether each component works now and has worked, and how the app does.

    Public: people look here when something seems broken. Without a permission it shows names and states only: no
    versions, hosts, routes, errors or people.
    """
    app, registry = request.app, request.app.state.registry
    assert isinstance(registry, Registry)  # noqa: S101  for the type checker
    report: Report = await app.state.health.report()
    until = utc_now()
    window = Window(chosen, until - RANGES[chosen], until)
    down = report.status == "down"
    private = [one for one in registry.status if one.permission]
    public = [one for one in registry.status if not one.permission]
    caller = await _caller(request) if private and not down else None
    sections = await shown_by(app).sections(public, window, ask=not down)
    opened = _open(sections)
    sections = sections + await sections_of(
        app, [one for one in private if caller and caller.may(one.permission)], window
    )
    context = {"report": report, "taken": until, "refresh": REFRESH, "sections": sections, "window": window}
    context |= {"ranges": tuple(RANGES), "caller": caller, "open": opened}
    headers = {"Cache-Control": "no-store", **(RETRY_AFTER if down else {})}
    return templates.TemplateResponse(
        request, "status.html", context, status_code=503 if down else 200, headers=headers
    )


async def _events(stopping: Stopping, most: int) -> AsyncIterator[ServerSentEvent]:
    for number in range(most):
        if number and await stopping.wait(LIVE):
            return
        yield ServerSentEvent(event="look", data=utc_now().isoformat())


@router.get(
    "/status/live",
    response_class=EventSourceResponse,
    dependencies=[rate_limit("status.live", "60/minute", by="ip"), Depends(_place)],
)
async def live(request: Request, limit: Limit = MOST_EVENTS) -> AsyncIterator[ServerSentEvent]:
    """Says every few seconds that it is time to look again; `limit` times at most.

    Public: it says nothing else; what there is to see, the page shows to whoever may see it.
    """
    async for event in _events(request.app.state.stopping, limit):
        yield event
