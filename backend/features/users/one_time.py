"""Tokens that are good once: for links in mails, and for the second step of a sign-in."""

import secrets
from datetime import timedelta

from sqlmodel import col, delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.errors import BadRequest
from backend.core.models import utc_now
from backend.features.users.models import OneTimeToken
from backend.features.users.tokens import sha256

PENDING = "second_factor"  # the first of two factors was shown


class UselessToken(BadRequest):
    code, message = "useless_token", "This link is expired, was used already, or is not one of ours"


async def issue(session: AsyncSession, user_id: int, purpose: str, *, lifetime: timedelta, subject: str = "") -> str:
    """A new token. Earlier ones of this person for the same purpose stop working; expired ones of anybody go."""
    now, token = utc_now(), secrets.token_urlsafe(32)
    mine = (col(OneTimeToken.user_id) == user_id) & (col(OneTimeToken.purpose) == purpose)
    await session.exec(delete(OneTimeToken).where(mine | (col(OneTimeToken.expires_at) < now)))
    session.add(
        OneTimeToken(
            user_id=user_id, purpose=purpose, subject=subject, token_hash=sha256(token), expires_at=now + lifetime
        )
    )
    await session.flush()
    return token


async def was_issued(
    session: AsyncSession, user_id: int, purpose: str, *, within: timedelta, subject: str = ""
) -> bool:
    """Whether this person got one a moment ago that is not used yet: who asks again need not get another mail."""
    mine = (OneTimeToken.user_id == user_id, OneTimeToken.purpose == purpose, OneTimeToken.subject == subject)
    newer = col(OneTimeToken.created_at) > utc_now() - within
    return (await session.exec(select(OneTimeToken.id).where(*mine, newer))).first() is not None


async def look_up(session: AsyncSession, token: str, purpose: str) -> OneTimeToken:
    """The row of a token that is still good, which stays good. UselessToken for any other."""
    known = (OneTimeToken.token_hash == sha256(token), OneTimeToken.purpose == purpose)
    found = (await session.exec(select(OneTimeToken).where(*known, col(OneTimeToken.expires_at) > utc_now()))).first()
    if found is None:
        raise UselessToken
    return found


async def redeem(session: AsyncSession, token: str, purpose: str) -> OneTimeToken:
    """The same, and the token is used up: of several who come at once, one gets it."""
    found = await look_up(session, token, purpose)
    gone = await session.exec(delete(OneTimeToken).where(col(OneTimeToken.id) == found.id))
    if gone.rowcount != 1:
        raise UselessToken
    session.expunge(found)
    return found


async def void(session: AsyncSession, user_id: int, purpose: str) -> None:
    """Make this person's tokens for a purpose worthless."""
    mine = (col(OneTimeToken.user_id) == user_id, col(OneTimeToken.purpose) == purpose)
    await session.exec(delete(OneTimeToken).where(*mine))
