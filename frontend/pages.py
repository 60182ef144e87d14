"""The pages, their templates and their static files."""

from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates

from backend.core.health import Report

HERE = Path(__file__).parent

templates = Jinja2Templates(HERE / "templates")
router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@router.get("/")
async def home(request: Request) -> HTMLResponse:
    """What this is and where things are.

    Public: it is the front door, and says nothing that the API documentation does not.
    """
    return templates.TemplateResponse(request, "home.html", {"registry": request.app.state.registry})


@router.get("/status")
async def status(request: Request) -> HTMLResponse:
    """Whether each component works now.

    Public: people look here when something seems broken; names and states only, no versions, hosts or errors.
    """
    report: Report = await request.app.state.health.report()
    code = 503 if report.status == "down" else 200
    context = {"report": report}
    return templates.TemplateResponse(request, "status.html", context, status_code=code)


def mount(app: FastAPI) -> None:
    """Serve the pages and their static files."""
    templates.env.globals["title"] = app.state.settings.api.title
    app.include_router(router)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
