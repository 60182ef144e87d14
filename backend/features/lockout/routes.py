"""/users/{user_id}/lockout: the delays of an account, and lifting them."""

from typing import Annotated

from fastapi import APIRouter

from backend.core.auth import Principal, requires
from backend.core.db import Session
from backend.core.schemas import Id
from backend.features.lockout import service
from backend.features.lockout.schemas import DelayOut, LockoutOut
from backend.features.users.service import get_user, may_manage

router = APIRouter(prefix="/users/{user_id:int}/lockout", tags=["users"])


@router.get("")
async def read_lockout(
    user_id: Id, session: Session, caller: Annotated[Principal, requires("lockout:read")]
) -> LockoutOut:
    """Whether sign-ins to this account have to wait, from where, and until when."""
    await get_user(session, user_id)
    return LockoutOut(delays=[DelayOut.model_validate(row) for row in await service.delays_of(session, user_id)])


@router.delete("", status_code=204)
async def lift_lockout(user_id: Id, session: Session, caller: Annotated[Principal, requires("lockout:lift")]) -> None:
    """Let this person sign in again at once: the failed sign-ins to the account are forgotten."""
    await may_manage(session, caller, await get_user(session, user_id))
    await service.lift(session, user_id)
