"""The pages, their templates and their static files."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

from backend.core.assets import Assets
from backend.core.errors import RETRY_AFTER
from backend.core.feature import Registry
from backend.core.health import Report

HERE = Path(__file__).parent
REFRESH = 30  # seconds after which an open status page asks again


def _context(request: Request) -> dict[str, Any]:
    """What every page shows. From the request, because two apps of one process share the templates."""
    registry: Registry = request.app.state.registry
    return {
        "root": request.scope["root_path"],
        "title": request.app.state.settings.api.title,
        "summary": request.app.summary,
        "features": registry.features,
        "on": registry.names,
        "console": registry.console_sign_in is not None,
    }


templates = Jinja2Templates(HERE / "templates", context_processors=[_context])
templates.env.trim_blocks = templates.env.lstrip_blocks = True
router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.api_route("/", methods=["GET", "HEAD"])
async def home(request: Request) -> HTMLResponse:
    """What this is and where things are.

    Public: it is the front door, and says nothing that the API documentation does not.
    """
    return templates.TemplateResponse(request, "home.html")


@router.api_route("/status", methods=["GET", "HEAD"])
async def status(request: Request) -> HTMLResponse:
    """Whether each component works now.

    Public: people look here when something seems broken; names and states only, no versions, hosts or errors.
    """
    report: Report = await request.app.state.health.report()
    down = report.status == "down"
    context = {"report": report, "taken": datetime.now(UTC), "refresh": REFRESH}
    headers = {"Cache-Control": "no-store", "Refresh": str(REFRESH), **(RETRY_AFTER if down else {})}
    return templates.TemplateResponse(
        request, "status.html", context, status_code=503 if down else 200, headers=headers
    )


def mount(app: FastAPI) -> None:
    """Serve the pages and their static files."""
    app.include_router(router)
    app.mount("/static", Assets(HERE / "static", cache="public, max-age=3600"), name="static")
