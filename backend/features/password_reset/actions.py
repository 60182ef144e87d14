"""Sending the link from the console."""

from typing import Any

from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core import context
from backend.core.auth import Permission, Principal, Rank
from backend.core.console_actions import RecordAction
from backend.core.errors import Conflict
from backend.core.mail import mailer_of
from backend.features.password_reset.service import issue_link
from backend.features.users.models import User
from backend.features.users.service import may_manage

SEND = Permission(
    name="password_reset:send", summary="Mail people a link to a new password", rank=Rank.STAFF, console=True
)


async def _send(_view: Any, session: AsyncSession, record: User, caller: Principal) -> None:
    await may_manage(session, caller, record)
    mailer = mailer_of(session)
    if not record.is_active or mailer is None:
        raise Conflict(f"{record.email} is deactivated: activate the account first")
    await issue_link(session, record, base_url=mailer.public_url(), address=context.address())


SEND_LINK = RecordAction(
    name="send_password_link",
    label="Send password link",
    question="They get a mail with a link to choose a new password. The present one stays good until then.",
    done="will get a link by mail",
    run=_send,
    permission=SEND.name,
)
