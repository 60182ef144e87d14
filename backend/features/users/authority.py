"""What a person may do, and who is behind a token. A caller known already costs no SQL (`backend.core.principals`)."""

import time
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated

from fastapi import Depends
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from backend.core.auth import InPerson, Permission, Principal, Rank, console_only, granted
from backend.core.db import Database
from backend.core.errors import Forbidden, Unauthorized
from backend.core.events import emit
from backend.core.headers import header
from backend.core.models import key_of, utc_now
from backend.core.principals import Principals
from backend.features.users.events import PermissionsAsked
from backend.features.users.models import User, UserSession
from backend.features.users.settings import UsersSettings
from backend.features.users.tokens import EXPIRED_OR_FORGED, read


class SignInAgain(Forbidden):
    code, message = "sign_in_again", "Sign in again for this: it opens another way into your account"


SEEN_EVERY = timedelta(minutes=5)  # a write per session, not per request


async def held_by(session: AsyncSession, user_id: int, rank: Rank, *, withheld: bool = False) -> frozenset[str]:
    """The permissions of a person: what the rank holds, as those who listen change it.

    `withheld=True`: with those that they may not use for now.
    """
    permissions: dict[str, Permission] = session.info["permissions"]
    asked = PermissionsAsked(user_id=user_id, rank=rank, held=set(granted(permissions, rank)))
    await emit(session, asked)
    held = asked.held | asked.withheld if withheld else asked.held
    return frozenset(held & permissions.keys())


async def principal_of(
    session: AsyncSession, user: User, *, via: str, credential: int | None, since: datetime | None = None
) -> Principal:
    """A person with everything that they hold. `since`: when their session began."""
    rank, user_id = Rank[user.role.upper()], key_of(user)
    held = await held_by(session, user_id, rank)
    return Principal(
        id=user_id, name=user.email, rank=rank, permissions=held, via=via, credential=credential, signed_in_at=since
    )


async def note_seen(database: Database, session_id: int, last_seen: datetime, *, every: timedelta = SEEN_EVERY) -> None:
    """Remember that a session is in use, some minutes exact."""
    now = utc_now()
    if now - last_seen < every:
        return
    async with database.session() as session:
        mine = col(UserSession.id) == session_id
        await session.exec(update(UserSession).where(mine).values(last_seen_at=now))
        await session.commit()


async def recognise_bearer(connection: HTTPConnection) -> Principal | None:
    """The person behind `Authorization: Bearer …`; None when the header is of another kind."""
    kind, _, token = header(connection.scope, b"authorization").partition(" ")
    if kind.lower() != "bearer":
        return None
    principals: Principals = connection.app.state.principals
    token = token.strip()
    return principals.get(token) or await principals.find(token, partial(_look_up, connection, token))


async def _look_up(connection: HTTPConnection, token: str) -> tuple[Principal, float]:
    """Whose token it is, and for how many seconds."""
    database: Database = connection.app.state.database
    claims = read(connection.app.state.settings, token)
    statement = (
        select(User, UserSession)
        .join(UserSession, col(UserSession.user_id) == User.id)
        .where(
            User.id == claims.user_id,
            col(User.is_active),
            UserSession.sid == claims.sid,
            col(UserSession.expires_at) > utc_now(),
        )
    )
    async with database.session(reading=True) as session:
        beyond = console_only(session.info["permissions"])
        row = (await session.exec(statement)).first()
        if row is None:
            raise Unauthorized(EXPIRED_OR_FORGED)
        user, opened = row
        via = "impersonation" if claims.actor else "token"
        person = await principal_of(session, user, via=via, credential=opened.id, since=opened.created_at)
    narrowed = opened.scope is not None
    scopes = claims.scopes if narrowed else claims.scopes | beyond  # which a token for everything does not spell out
    principal = replace(person, permissions=person.permissions & scopes, narrowed=narrowed, actor=claims.actor)
    await note_seen(database, key_of(opened), opened.last_seen_at)
    return principal, claims.expires - time.time()


async def _recent(caller: InPerson) -> Principal:
    limit = timedelta(minutes=UsersSettings.current().recent_minutes)
    if caller.signed_in_at is None or utc_now() - caller.signed_in_at > limit:
        raise SignInAgain
    if caller.narrowed:
        raise Forbidden("A token for some permissions only cannot open another way into the account")
    return caller


# Somebody who has signed in a moment ago: for what opens another way in, so that a stolen token cannot.
JustSignedIn = Annotated[Principal, Depends(_recent)]
