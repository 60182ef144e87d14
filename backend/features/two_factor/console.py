"""One's own second factor, in the console."""

from typing import Any, ClassVar

from markupsafe import Markup
from sqladmin import expose
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from backend.core.auth import Principal
from backend.core.console import ConsolePage
from backend.core.console_forms import text_fields
from backend.core.db import Database
from backend.core.errors import AppError, BadRequest
from backend.features.two_factor import qr, service
from backend.features.two_factor.proof import taking_code
from backend.features.users import service as users
from backend.features.users.console import hand_out, renewed_token
from backend.features.users.models import User
from backend.features.users.sign_in import check_password

TEMPLATE = "two_factor/templates/second_factor.html"
REQUIRED = "Until you have a second factor, your account may do next to nothing here. Set it up:"


class SecondFactorPage(ConsolePage):
    name = "Second factor"
    icon = "fa-solid fa-mobile-screen"
    category: ClassVar[str] = "Your account"

    async def notice(self, request: Request) -> str | None:
        state = await _state(request)
        return REQUIRED if state.required and not state.enabled else None

    @expose("/second-factor", methods=["GET", "POST"])
    async def second_factor(self, request: Request) -> Response:
        """What can be done now, and what came of what was sent."""
        news: dict[str, Any] = {}
        status = 200
        if request.method == "POST":
            try:
                news = await _do(request)
            except AppError as refused:
                news, status = {"problem": refused.text}, refused.status
        token = news.pop("token", "")
        page = await self.render(request, TEMPLATE, status, state=await _state(request), **news)
        if token:
            hand_out(request, page, token)
        return page


async def _state(request: Request) -> service.State:
    database: Database = request.app.state.database
    caller: Principal = request.state.principal
    async with database.session(reading=True) as session:
        return await service.state_of(session, caller.id, caller.rank)


async def _do(request: Request) -> dict[str, Any]:
    """Do what a button stands for; what to show, once. Switched on or off, the session gets another `token`."""
    database: Database = request.app.state.database
    caller: Principal = request.state.principal
    async with database.session(reading=True) as session:
        user = await users.get_user(session, caller.id)
    form = await text_fields(request)
    action, code = str(form.get("action", "")), str(form.get("code", ""))
    if action == "begin":
        await _check_password(database, user, form)
        async with database.session() as session:
            return await _begun(session, user)
    if action == "disable":
        await _check_password(database, user, form)
    if action not in ("confirm", "renew", "disable"):
        raise BadRequest
    async with taking_code(database, user) as session:
        if action == "confirm":
            codes = await service.confirm(session, caller, code)
            return {"recovery_codes": codes, "token": await renewed_token(session, caller.credential)}
        if action == "renew":
            return {"recovery_codes": await service.renew_recovery_codes(session, caller.id, code)}
        await service.disable(session, caller, code)
        return {"done": "Your second factor is off.", "token": await renewed_token(session, caller.credential)}


async def _check_password(database: Database, user: User, form: FormData) -> None:
    service.refuse_without_password(user)
    await check_password(database, email=user.email, password=str(form.get("password", "")))


async def _begun(session: AsyncSession, user: User) -> dict[str, Any]:
    secret, uri = await service.begin(session, user)
    await session.commit()
    return {"secret": secret, "qr_svg": Markup(qr.svg(uri))}  # noqa: S704  made by us, of a URI that is quoted
