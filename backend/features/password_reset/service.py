"""The link to a new password, and the notice of one."""

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

from sqlalchemy.orm.exc import StaleDataError
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core import context
from backend.core.auth import current_principal
from backend.core.db import Database
from backend.core.events import SecurityEvent, emit
from backend.core.models import key_of, utc_now
from backend.core.templates import send_template
from backend.features.password_reset.settings import PasswordResetSettings
from backend.features.users import one_time
from backend.features.users.events import AccountReclaimed, PasswordChanged
from backend.features.users.models import User
from backend.features.users.service import mark_verified, new_hash, store_password

PURPOSE = "reset_password"
TEMPLATES = Path(__file__).parent / "templates"
ONE_MAIL_EVERY = timedelta(minutes=1)


@dataclass(frozen=True, kw_only=True)
class PasswordResetRequested(SecurityEvent):
    """A link has been mailed; `address` is that of whoever asked."""

    action: ClassVar[str] = "password_reset.requested"
    address: str


@dataclass(frozen=True, kw_only=True)
class PasswordReset(SecurityEvent):
    """A mailed link was used; `PasswordChanged` tells the rest."""

    action: ClassVar[str] = "password_reset.completed"


async def mail_link(database: Database, email: str, *, base_url: str, address: str) -> None:
    """A link to this address, if it is one of an active account that got none a moment ago."""
    async with database.session() as session:
        # locked, so that of several who ask at once one gets a mail
        user = (await session.exec(select(User).where(User.email == email).with_for_update())).first()
        if user is None or not user.is_active:
            return
        if not await one_time.was_issued(session, key_of(user), PURPOSE, within=ONE_MAIL_EVERY, subject=email):
            await issue_link(session, user, base_url=base_url, address=address)
            await session.commit()


async def issue_link(session: AsyncSession, user: User, *, base_url: str, address: str) -> None:
    """Mail a link to this account's address, when the session commits."""
    user_id, minutes = key_of(user), PasswordResetSettings.current().lifetime_minutes
    lifetime = timedelta(minutes=minutes)
    token = await one_time.issue(session, user_id, PURPOSE, lifetime=lifetime, subject=user.email)
    link = f"{base_url}/reset-password?token={token}"
    await emit(session, PasswordResetRequested(user_id=user_id, address=address))
    send_template(
        session, TEMPLATES, "link", to=user.email, subject="Choose a new password", link=link, minutes=minutes
    )


async def whose(session: AsyncSession, token: str) -> User:
    """The account that a link is for. UselessToken also when it was deactivated, or has another address by now."""
    found = await one_time.look_up(session, token, PURPOSE)
    user = await session.get(User, found.user_id)
    if user is None or not user.is_active or user.email != found.subject:
        raise one_time.UselessToken
    return user


async def reset(session: AsyncSession, token: str, password: str) -> None:
    """Give the account a new password and use the link up. Unprocessable when it is weak: the link stays good."""
    user = await whose(session, token)
    hashed = await new_hash(session, user, password)
    await one_time.redeem(session, token, PURPOSE)
    if not user.email_verified:
        await emit(session, AccountReclaimed(user_id=key_of(user)))
    try:
        await store_password(session, user, hashed, reason="password reset")
    except StaleDataError:  # an administrator edited the account at the same moment
        raise one_time.UselessToken from None
    await mark_verified(session, user)
    await emit(session, PasswordReset(user_id=key_of(user)))


async def tell_owner(session: AsyncSession, event: PasswordChanged) -> None:
    """Whoever changed it: the owner shall know, by a way that a thief of the password does not hold.

    Links that were mailed before are worthless from now on.
    """
    await one_time.void(session, event.user_id, PURPOSE)
    user = await session.get(User, event.user_id)
    if user is None or not user.is_active:
        return
    caller = current_principal()
    values = {
        "at": utc_now(),
        "by_somebody_else": caller is not None and caller.id != event.user_id,
        "address": context.address(),
    }
    send_template(session, TEMPLATES, "changed", to=event.email, subject="Your password was changed", **values)
