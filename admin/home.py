"""The console's first page: how the app does, what was done lately, and the way to everything."""

from typing import Any

from starlette.requests import Request

from backend.core.auth import Principal
from backend.core.feature import Registry
from backend.core.models import utc_now
from backend.core.panels import sections_of
from backend.core.status import RANGES, Window

SHOWN = "24h"


async def home_context(request: Request) -> dict[str, Any]:
    """What the template needs. Panels that cannot be read say so; the rest of the page is there."""
    registry: Registry = request.app.state.registry
    caller: Principal = request.state.principal
    until = utc_now()
    mine = [panel for panel in registry.home if not panel.permission or caller.may(panel.permission)]
    sections = await sections_of(request.app.state.main, mine, Window(SHOWN, until - RANGES[SHOWN], until))
    return {"sections": sections, "report": await request.app.state.main.state.health.report()}
