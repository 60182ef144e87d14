"""/api/v2/log-level: what the log says now, and more or less of it for a while."""

from typing import Annotated

from fastapi import APIRouter, Request, Response

from backend.core.auth import Principal, requires
from backend.core.db import Session
from backend.features.log_level.level import Levels, change, levels_of
from backend.features.log_level.permissions import MANAGE
from backend.features.log_level.schemas import LogLevelIn, LogLevelOut

router = APIRouter(prefix="/log-level", tags=["log level"])

Manager = Annotated[Principal, requires(MANAGE)]


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
    levels = levels_of(request.app)
    await change(session, levels, level=body.level, seconds=body.seconds)
    return LogLevelOut(
        level=body.level,
        usual=levels.settings.log.level,
        seconds=body.seconds,
        everywhere=await levels.reaches_others(),
    )
