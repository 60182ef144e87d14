"""The button on an account's page."""

from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Permission, Principal, Rank
from backend.core.console_actions import RecordAction
from backend.features.impersonation.service import Started, start
from backend.features.users.models import User

IMPERSONATE = Permission(name="users:impersonate", summary="Act as somebody else", rank=Rank.ADMIN, console=True)


async def _sign_in_as(_view: Any, session: AsyncSession, record: User, caller: Principal, *, reason: str) -> Started:
    return await start(session, caller, record, reason=reason)


SIGN_IN_AS = RecordAction(
    name="impersonate",
    label="Sign in as",
    question="You get an access token for the API that does what they may do, for some minutes. It is all recorded "
    "under both names. They see you among their devices and, unless that is switched off, get a mail with your reason.",
    done="impersonated",
    run=_sign_in_as,
    dangerous=True,
    asks_reason=True,
    template="impersonation/templates/started.html",
    permission=IMPERSONATE.name,
)
