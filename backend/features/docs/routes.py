"""The two pages and the files that they use."""

import hashlib
import secrets
from pathlib import Path

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from fastapi.templating import Jinja2Templates

from backend.core.assets import Assets

HERE = Path(__file__).parent
STATIC = HERE / "static"

# Part of every file's URL: browsers may keep what they got for a year, and still see an update at once.
FILES = sorted(file for file in STATIC.rglob("*") if file.is_file())
VERSION = hashlib.sha256(b"".join(file.read_bytes() for file in FILES)).hexdigest()[:12]

# ReDoc writes <style> elements and carries an icon font. The nonce lets in the elements that our script marks with it.
REDOC_CSP = "; ".join(
    (
        "default-src 'self'",
        "style-src 'self' 'nonce-{nonce}'",
        "img-src 'self' data:",
        "font-src 'self' data:",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)


templates = Jinja2Templates(HERE / "templates")
router = APIRouter(include_in_schema=False)
router.mount("/docs/static", Assets(STATIC, cache="public, max-age=31536000, immutable"), name="docs_static")


def _page(request: Request, name: str, **context: str) -> HTMLResponse:
    root = request.scope["root_path"]
    title = request.app.state.settings.api.title
    context |= {"title": title, "openapi": f"{root}/openapi.json", "static": f"{root}/docs/static", "version": VERSION}
    return templates.TemplateResponse(request, name, context, headers={"Cache-Control": "no-cache"})


@router.api_route("/docs", methods=["GET", "HEAD"])
async def swagger_ui(request: Request) -> HTMLResponse:
    """Swagger UI: the operations, to try out.

    Public: it shows the OpenAPI document, which is public.
    """
    return _page(request, "swagger.html")


@router.api_route("/redoc", methods=["GET", "HEAD"])
async def redoc(request: Request) -> HTMLResponse:
    """ReDoc: the same document, to read.

    Public: it shows the OpenAPI document, which is public.
    """
    nonce = secrets.token_urlsafe(16)
    response = _page(request, "redoc.html", nonce=nonce)
    response.headers["Content-Security-Policy"] = REDOC_CSP.format(nonce=nonce)
    return response
