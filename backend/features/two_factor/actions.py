"""What the console can do to the second factor of somebody else."""

from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Principal
from backend.core.console_actions import RecordAction
from backend.core.models import key_of
from backend.features.two_factor import service
from backend.features.two_factor.permissions import RESET
from backend.features.users.models import User


async def _reset(_view: Any, session: AsyncSession, record: User, caller: Principal) -> None:
    await service.reset(session, caller, key_of(record))


REMOVE = RecordAction(
    name="reset_second_factor",
    label="Remove second factor",
    question="For somebody who lost theirs. They are signed out everywhere, and sign in with the password alone.",
    done="without a second factor now",
    run=_reset,
    dangerous=True,
    permission=RESET,
)
