"""The link: who gets one, what it is good for, and who stays out without it."""

from datetime import timedelta
from pathlib import Path

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.db import Database
from backend.core.errors import Forbidden
from backend.core.mail import mailer_of
from backend.core.models import key_of
from backend.core.templates import send_template
from backend.features.email_verification.settings import EmailVerificationSettings
from backend.features.users import one_time
from backend.features.users.events import AccountCreated, EmailChanged, IdentityProven
from backend.features.users.models import User
from backend.features.users.service import mark_verified

PURPOSE = "verify_email"
TEMPLATES = Path(__file__).parent / "templates"
ONE_MAIL_EVERY = timedelta(minutes=1)


class EmailNotVerified(Forbidden):
    code, message = (
        "email_not_verified",
        "Verify your e-mail address first: open the link that we have sent you, or ask for another one",
    )


async def _mail_link(session: AsyncSession, user: User, base_url: str) -> None:
    hours = EmailVerificationSettings.current().lifetime_hours
    lifetime = timedelta(hours=hours)
    token = await one_time.issue(session, key_of(user), PURPOSE, lifetime=lifetime, subject=user.email)
    link = f"{base_url}/verify-email?token={token}"
    send_template(
        session, TEMPLATES, "mail", to=user.email, subject="Verify your e-mail address", link=link, hours=hours
    )


async def _mail_account(session: AsyncSession, user_id: int | None) -> None:
    """Who was vouched for by somebody else needs no mail; who was deactivated gets none."""
    mailer, user = mailer_of(session), await session.get(User, user_id)
    if mailer and user and user.is_active and not user.email_verified:
        await _mail_link(session, user, mailer.public_url())


async def mail_new_account(session: AsyncSession, event: AccountCreated) -> None:
    await _mail_account(session, event.user_id)


async def mail_new_address(session: AsyncSession, event: EmailChanged) -> None:
    await _mail_account(session, event.user_id)


async def keep_out_unverified(session: AsyncSession, event: IdentityProven) -> None:
    if EmailVerificationSettings.current().required and not event.user.email_verified:
        raise EmailNotVerified


async def mail_again(database: Database, email: str, base_url: str) -> None:
    """Another link to this address, if it is one of an active account that needs one and got none a moment ago."""
    async with database.session() as session:
        # locked, so that of several who ask at once one gets a mail
        user = (await session.exec(select(User).where(User.email == email).with_for_update())).first()
        if user is None or not user.is_active or user.email_verified:
            return
        if not await one_time.was_issued(session, key_of(user), PURPOSE, within=ONE_MAIL_EVERY, subject=email):
            await _mail_link(session, user, base_url)
            await session.commit()


async def verify(session: AsyncSession, token: str) -> None:
    """Use the link. UselessToken also when the account has another address by now."""
    used = await one_time.redeem(session, token, PURPOSE)
    user = await session.get(User, used.user_id)
    if user is None or user.email != used.subject:
        raise one_time.UselessToken
    await mark_verified(session, user)
