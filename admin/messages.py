"""What a page says once, after what somebody did on the page before: in a cookie, which only we can set."""

from base64 import urlsafe_b64decode, urlsafe_b64encode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import Scope

COOKIE = "console_message"
SECONDS = 60
LONGEST = 500  # characters


def redirect_with(request: Request, url: str, message: str) -> Response:
    """Go on to another page, which shows the message."""
    response = RedirectResponse(url, status_code=303)
    value = urlsafe_b64encode(message[:LONGEST].encode()).decode()
    secure, path = request.url.scheme == "https", request.scope.get("app_root_path") or "/"
    response.set_cookie(COOKIE, value, SECONDS, path=path, httponly=True, samesite="strict", secure=secure)
    return response


def message_of(request: Request) -> str:
    """What is to be said; nothing when there is none, or it is not ours."""
    try:
        return urlsafe_b64decode(request.cookies.get(COOKIE, "")).decode()[:LONGEST]
    except ValueError:
        return ""


def forgotten(scope: Scope) -> str:
    """The header that ends it."""
    response = Response()
    response.delete_cookie(COOKIE, path=scope.get("app_root_path") or "/", httponly=True, samesite="strict")
    return response.headers["set-cookie"]
