"""/api/v2/log-level: what the log says now, and more or less of it for a while."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from backend.core.auth import Principal, requires
from backend.core.commits import after_commit
from backend.core.config import LogLevel
from backend.core.db import Session
from backend.core.events import emit
from backend.core.schemas import Input
from backend.features.log_level.events import LogLevelChanged
from backend.features.log_level.level import Levels, levels_of

router = APIRouter(prefix="/log-level", tags=["log level"])

Manager = Annotated[Principal, requires("logs:manage")]
LONGEST = 24 * 3600


class LogLevelIn(Input):
    level: LogLevel = Field(description="Least severe level to write")
    seconds: int = Field(900, ge=1, le=LONGEST, description="For how long; then it is again what the settings say")


class LogLevelOut(BaseModel):
    level: LogLevel = Field(description="Least severe level that is written now")
    usual: LogLevel = Field(description="What the settings say")
    seconds: int | None = Field(description="For how much longer; null: the settings' own")
    everywhere: bool = Field(description="In all processes within seconds; false: in the one that answers only")


def _shown(levels: Levels) -> LogLevelOut:
    wish = levels.wish
    return LogLevelOut(
        level=levels.level,
        usual=levels.settings.log.level,
        seconds=wish.seconds_left if wish else None,
        everywhere=wish.shared if wish else True,
    )


@router.get("")
async def read_log_level(request: Request, response: Response, caller: Manager) -> LogLevelOut:
    """How much the process that answers writes to its log."""
    levels = levels_of(request.app)
    await levels.look()
    response.headers["Cache-Control"] = "no-store"
    return _shown(levels)


@router.put("")
async def change_log_level(body: LogLevelIn, request: Request, session: Session, caller: Manager) -> LogLevelOut:
    """Write more, or less, to the log for a while. Other libraries' lines below `info` are never part of it."""
    await emit(session, LogLevelChanged(level=body.level, seconds=body.seconds))
    levels = levels_of(request.app)
    after_commit(session, lambda: levels.ask_for(body.level, body.seconds))  # not without its record
    return LogLevelOut(
        level=body.level,
        usual=levels.settings.log.level,
        seconds=body.seconds,
        everywhere=await levels.reaches_others(),
    )
