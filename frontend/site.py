"""What all pages have: their router, their templates, and what these show."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

from backend.core.feature import Registry
from backend.core.panels import DRAWING, SHARED

HERE = Path(__file__).parent

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


def _context(request: Request) -> dict[str, Any]:
    """From the request, because two apps of one process share the templates."""
    registry: Registry = request.app.state.registry
    return {
        "root": request.scope["root_path"],
        "title": request.app.state.settings.api.title,
        "summary": request.app.summary,
        "features": registry.features,
        "on": registry.names,
        "console": registry.console_sign_in is not None,
    }


templates = Jinja2Templates([HERE / "templates", SHARED], context_processors=[_context])
templates.env.add_extension("jinja2.ext.i18n")
templates.env.policies["ext.i18n.trimmed"] = True
templates.env.install_null_translations(newstyle=True)  # type: ignore[attr-defined]
templates.env.trim_blocks = templates.env.lstrip_blocks = True
templates.env.globals |= DRAWING
