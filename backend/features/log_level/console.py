"""How much the log says, in the console."""

from datetime import timedelta
from typing import Any, get_args

from pydantic import ValidationError
from sqladmin import expose
from starlette.requests import Request
from starlette.responses import Response

from backend.core.auth import Principal
from backend.core.config import LogLevel
from backend.core.console import ConsolePage
from backend.core.console_forms import message_of, text_fields
from backend.core.db import Database
from backend.core.models import utc_now
from backend.features.log_level.level import Levels, change, levels_of
from backend.features.log_level.permissions import MANAGE
from backend.features.log_level.schemas import LogLevelIn

TEMPLATE = "log_level/templates/log_level.html"
PERIODS = {300: "5 minutes", 900: "15 minutes", 3600: "1 hour", 4 * 3600: "4 hours", 24 * 3600: "24 hours"}


class LogLevelPage(ConsolePage):
    name = "Log level"
    icon = "fa-solid fa-file-lines"

    def is_accessible(self, request: Request) -> bool:
        caller: Principal = request.state.principal
        return caller.may(MANAGE)

    @expose("/log-level", methods=["GET", "POST"])
    async def log_level(self, request: Request) -> Response:
        """The level in force, and the form that changes it for a while."""
        levels, done, problem, status = levels_of(request.app.state.main), "", "", 200
        if request.method == "POST":
            try:
                done = await _do(request, levels)
            except ValidationError as exc:
                problem, status = message_of(exc), 422
        await levels.look()
        differs = levels.wish is not None and levels.level != levels.settings.log.level
        context: dict[str, Any] = {
            "levels": levels,
            "until": utc_now() + timedelta(seconds=levels.wish.seconds_left) if levels.wish and differs else None,
            "known": get_args(LogLevel),
            "periods": PERIODS,
            "reaches_others": await levels.reaches_others(),
        }
        return await self.render(request, TEMPLATE, status, done=done, problem=problem, **context)


async def _do(request: Request, levels: Levels) -> str:
    """Do what the form says; what to say of it. A level for a second is the way back to the usual one."""
    form = await text_fields(request)
    asked = {"level": form.get("level"), "seconds": form.get("seconds")}
    if form.get("action") == "usual":
        asked = {"level": levels.settings.log.level, "seconds": "1"}
    wish = LogLevelIn.model_validate_strings(asked, strict=False)
    database: Database = request.app.state.database
    async with database.session() as session:
        await change(session, levels, level=wish.level, seconds=wish.seconds)
        await session.commit()
    return "The level is again what the settings say." if form.get("action") == "usual" else "The level has changed."
