"""Who may enter the console, and what they may do there: the app's own staff, sessions and permissions."""

from typing import Any

from sqladmin.authentication import AuthenticationBackend
from sqladmin.authorization import Action, AuthorizationBackend
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from backend.core.auth import CONSOLE_COOKIE, ConsoleSignIn, Principal, console_cookie, remember
from backend.core.console import ConsoleView
from backend.core.console_forms import text_fields
from backend.core.db import Database
from backend.core.limits import declare

FIELDS = ("username", "password", "pending", "code")
SIGN_IN = declare("console.sign_in", "120/minute", by="ip", when_away="closed")


class ConsoleAuthentication(AuthenticationBackend):
    """The cookie holds an opaque token; the session itself is on the server and ends there."""

    def __init__(self, database: Database, sign_in: ConsoleSignIn) -> None:
        self.middlewares = []  # SQLAdmin's own keeps the session in the cookie, where signing out cannot end it
        self._database = database
        self._sign_in = sign_in

    async def login(self, request: Request) -> Response | bool:
        await SIGN_IN(request)
        form = await text_fields(request)
        name, password, pending, code = (str(form.get(field, "")) for field in FIELDS)
        if "\x00" in name + password:
            return False
        if pending:
            token = await self._sign_in.finish(request, pending, code.strip())
        else:
            token = await self._sign_in.start(request, name.strip(), password)
        if token is None:
            return False
        if old := request.cookies.get(CONSOLE_COOKIE):
            async with self._database.session() as session:
                await self._sign_in.end(session, old)
                await session.commit()
        response = RedirectResponse(request.url_for("admin:index"), status_code=303)
        lifetime = int(self._sign_in.lifetime.total_seconds())
        response.set_cookie(value=token, max_age=lifetime, **console_cookie(request))
        return response

    async def logout(self, request: Request) -> Response | bool:
        if token := request.cookies.get(CONSOLE_COOKIE):
            async with self._database.session() as session:
                await self._sign_in.end(session, token)
                await session.commit()
        response = RedirectResponse(request.url_for("admin:login"), status_code=303)
        response.delete_cookie(**console_cookie(request))
        return response

    async def authenticate(self, request: Request) -> Response | bool:
        token = request.cookies.get(CONSOLE_COOKIE)
        if not token:
            return False
        async with self._database.session(reading=True) as session:
            principal = await self._sign_in.resume(request, session, token)
        if principal is None:
            return False
        remember(request, principal)
        return True

    async def get_user_id(self, request: Request) -> int:
        principal: Principal = request.state.principal
        return principal.id


class PermissionBackend(AuthorizationBackend):
    """Each thing that a view offers has a permission; the menu, the buttons and the routes all ask here."""

    def __init__(self) -> None:
        self.views: dict[str, type[ConsoleView]] = {}  # by identity

    def has_permission(self, request: Request, identity: str, action: str, obj: Any | None = None) -> bool:
        principal: Principal | None = getattr(request.state, "principal", None)
        if principal is None or identity not in self.views:
            return False
        return self.views[identity].is_open_to(principal, "view" if action == Action.DETAILS else str(action))
