"""One's own account in the console: name, password, and where one is signed in."""

from typing import Any, ClassVar

from pydantic import ValidationError
from sqladmin import expose
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import Response

from backend.core.auth import Principal
from backend.core.console import ConsolePage
from backend.core.console_forms import message_of, text_fields
from backend.core.db import MAX_ID, Database
from backend.core.errors import AppError, BadRequest, NotFound, Unprocessable
from backend.features.users import service, sessions
from backend.features.users.console import hand_out, renewed_token
from backend.features.users.schemas import PasswordChange, ProfilePatch
from backend.features.users.sign_in import check_password

TEMPLATE = "users/templates/account.html"


class AccountPage(ConsolePage):
    name = "Profile"
    icon = "fa-solid fa-circle-user"
    category: ClassVar[str] = "Your account"

    @expose("/account", methods=["GET", "POST"])
    async def account(self, request: Request) -> Response:
        """What is stored about the person, and what came of what was sent."""
        done, token, problem, status = "", "", "", 200
        if request.method == "POST":
            try:
                done, token = await _do(request, await text_fields(request))
            except ValidationError as exc:
                problem, status = message_of(exc), 422
            except AppError as refused:
                problem, status = refused.text, refused.status
        caller: Principal = request.state.principal
        database: Database = request.app.state.database
        async with database.session(reading=True) as session:
            context: dict[str, Any] = {
                "user": await service.get_user(session, caller.id),
                "sessions": await sessions.list_sessions(session, caller.id),
            }
        page = await self.render(request, TEMPLATE, status, caller=caller, done=done, problem=problem, **context)
        if token:
            hand_out(request, page, token)
        return page


async def _do(request: Request, form: FormData) -> tuple[str, str]:
    """Do what a button stands for; what to say of it, and the session's new token if it got one."""
    fields = {name: str(value) for name, value in form.items()}
    caller: Principal = request.state.principal
    database: Database = request.app.state.database
    action = fields.pop("action", "")
    if action == "password":
        return await _change_password(database, caller, fields)
    async with database.session() as session:
        said = await _change(session, caller, action, fields)
        await session.commit()
    return said, ""


async def _change(session: AsyncSession, caller: Principal, action: str, fields: dict[str, str]) -> str:
    if action == "profile":
        chosen = ProfilePatch.model_validate(fields)
        await service.update_user(session, await service.get_user(session, caller.id), full_name=chosen.full_name)
        return "Your name is saved."
    if action == "elsewhere":
        many = await sessions.end(session, caller.id, reason="signed out in the console", but=caller.credential)
        return f"{many} other {'session was' if many == 1 else 'sessions were'} ended."
    if action == "end":
        number = fields.get("session", "")
        if not (number.isascii() and number.isdecimal() and int(number[:10]) <= MAX_ID):
            raise NotFound("There is no such session")
        await sessions.end_one(session, caller.id, int(number[:10]), reason="ended in the console")
        return "That device is signed out."
    raise BadRequest


async def _change_password(database: Database, caller: Principal, fields: dict[str, str]) -> tuple[str, str]:
    chosen = PasswordChange.model_validate({name: fields.get(name, "") for name in PasswordChange.model_fields})
    new = chosen.new_password.get_secret_value()
    if new != fields.get("again"):
        raise Unprocessable("The new passwords differ: type the same one twice")
    present = chosen.current_password.get_secret_value()
    await check_password(database, email=caller.name, password=present)
    async with database.session() as session:
        user = await service.get_user(session, caller.id)
        hashed = await service.new_hash(session, user, new)
        await service.store_password(session, user, hashed, keep_session=caller.credential, reason="password changed")
        token = await renewed_token(session, caller.credential)
        await session.commit()
    return "Your password is changed. Every other device is signed out.", token
