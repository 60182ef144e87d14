"""Which account an external identity opens, and what it takes to link one."""

from collections.abc import Sequence

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.config import Settings
from backend.core.db import Database
from backend.core.errors import AppError, Conflict, Forbidden, NotFound, Unauthorized
from backend.core.events import emit
from backend.core.models import key_of, utc_now
from backend.features.external_sign_in.errors import AccountNotVerified, EmailNotVerified
from backend.features.external_sign_in.events import IdentityLinked, IdentityUnlinked
from backend.features.external_sign_in.models import ExternalIdentity
from backend.features.external_sign_in.people import Person
from backend.features.users import sessions
from backend.features.users.events import AccountReclaimed
from backend.features.users.models import User, UserSession
from backend.features.users.passwords import UNUSABLE
from backend.features.users.service import create_user
from backend.features.users.settings import UsersSettings
from backend.features.users.sign_in import note_failure, proven


async def _find(session: AsyncSession, provider: str, person: Person) -> ExternalIdentity | None:
    theirs = (ExternalIdentity.provider == provider, ExternalIdentity.subject == person.subject)
    return (await session.exec(select(ExternalIdentity).where(*theirs))).first()


async def _account_of(session: AsyncSession, provider: str, person: Person) -> User | None:
    """The account that this identity opens, or may be linked to; None when there is none yet.

    An address alone opens an account only when both sides have verified it: the provider now, and we before.
    """
    if known := await _find(session, provider, person):
        return await session.get_one(User, known.user_id)
    if not person.email_verified:
        raise EmailNotVerified
    user = (await session.exec(select(User).where(User.email == person.email))).first()
    if user and not user.email_verified:
        raise AccountNotVerified
    return user


async def _sign_up(database: Database, person: Person) -> User:
    if not UsersSettings.current().signup_open:
        raise Forbidden("Sign-up is closed; ask an administrator for an account")
    async with database.session() as session:
        user = await create_user(
            session, email=person.email, password=None, full_name=person.name, email_verified_at=utc_now()
        )
        await session.commit()
    return user


async def _attach(session: AsyncSession, user: User, provider: str, person: Person) -> ExternalIdentity:
    """Note that the identity was used; link it first when it is new. Conflict when it is somebody else's."""
    identity = await _find(session, provider, person)
    if identity is None:
        identity = ExternalIdentity(user_id=key_of(user), provider=provider, subject=person.subject)
        await emit(session, IdentityLinked(user_id=key_of(user), provider=provider, email=person.email))
    elif identity.user_id != user.id:
        raise Conflict("This identity belongs to another account here")
    identity.email, identity.last_used_at = person.email, utc_now()
    session.add(identity)
    await session.flush()
    return identity


async def sign_in(database: Database, settings: Settings, provider: str, person: Person) -> sessions.Opened:
    """A session for the person: of their account, or of a new one when sign-up is open.

    Whatever else is asked at a sign-in (a second factor) is asked here too; a link is stored only once that is done.
    """
    try:
        async with database.session(reading=True) as session:
            user = await _account_of(session, provider, person)
        if user is None:
            user = await _sign_up(database, person)
        if not user.is_active:
            raise Unauthorized("This account has been deactivated")
    except AppError as refusal:
        await note_failure(database, email=person.email, user_id=None, reason=refusal.code)
        raise
    async with proven(database, user, method=provider) as session:
        await _attach(session, user, provider, person)
        return await sessions.open_for_tokens(session, settings, user, method=provider)


async def link(database: Database, sid: str, provider: str, person: Person) -> ExternalIdentity:
    """Link an identity to the account whose session asked for it; Unauthorized when that has ended since."""
    async with database.session() as session:
        asking = (UserSession.sid == sid, col(UserSession.expires_at) > utc_now(), col(User.is_active))
        statement = select(User).join(UserSession, col(UserSession.user_id) == User.id).where(*asking)
        user = (await session.exec(statement)).first()
        if user is None:
            raise Unauthorized("The session that asked for this has ended: sign in and begin again")
        identity = await _attach(session, user, provider, person)
        await session.commit()
    return identity


async def session_id_of(session: AsyncSession, credential: int | None) -> str:
    """The key of the caller's session that is never given out again."""
    found = await session.get(UserSession, credential) if credential else None
    if found is None:
        raise Unauthorized
    return found.sid


async def list_identities(session: AsyncSession, user_id: int) -> Sequence[ExternalIdentity]:
    mine = select(ExternalIdentity).where(ExternalIdentity.user_id == user_id)
    return (await session.exec(mine.order_by(col(ExternalIdentity.id)))).all()


async def unlink(session: AsyncSession, user_id: int, identity_id: int) -> None:
    """NotFound when this person has no such identity; Conflict when nothing else would let them in."""
    # locks all of theirs: of two that go at the same moment, the second knows of the first
    mine = select(ExternalIdentity).where(ExternalIdentity.user_id == user_id).order_by(col(ExternalIdentity.id))
    identities = (await session.exec(mine.with_for_update())).all()
    gone = next((one for one in identities if one.id == identity_id), None)
    if gone is None:
        raise NotFound("There is no such identity")
    user = await session.get_one(User, user_id)
    if len(identities) == 1 and user.password_hash == UNUSABLE:
        raise Conflict("This is the only way into the account: set a password first")
    await session.delete(gone)
    await session.flush()
    await emit(session, IdentityUnlinked(user_id=user_id, provider=gone.provider, email=gone.email))


async def unlink_all(session: AsyncSession, event: AccountReclaimed) -> None:
    """Whoever made the account may have linked an identity of theirs."""
    for gone in await list_identities(session, event.user_id):
        await session.delete(gone)
        await emit(session, IdentityUnlinked(user_id=event.user_id, provider=gone.provider, email=gone.email))
    await session.flush()
