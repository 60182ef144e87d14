"""The pages and their static files."""

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse

from backend.core.assets import Assets
from frontend import status  # noqa: F401  its routes
from frontend.site import HERE, router, templates


@router.api_route("/", methods=["GET", "HEAD"])
async def home(request: Request) -> HTMLResponse:
    """What this is and where things are.

    Public: it is the front door, and says nothing that the API documentation does not.
    """
    return templates.TemplateResponse(request, "home.html")


def mount(app: FastAPI) -> None:
    """Serve the pages and their static files."""
    app.include_router(router)
    app.mount("/static", Assets(HERE / "static", cache="public, max-age=3600"), name="static")
