"""Access tokens: JWT (RFC 7519), HS256, short-lived. Who holds one is looked up, so that deactivation works at once."""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta

from jose import JWTError, jwt
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from backend.core.auth import Permission, Principal, Rank, granted
from backend.core.config import Settings
from backend.core.db import MAX_ID
from backend.core.errors import Unauthorized
from backend.core.models import utc_now
from backend.features.users.models import User

ALGORITHM = "HS256"
EXPIRED_OR_FORGED = "This token is expired or not one of ours"


def principal_of(user_id: int, email: str, role: str, permissions: Mapping[str, Permission]) -> Principal:
    """A person with everything that their role holds."""
    rank = Rank[role.upper()]
    return Principal(id=user_id, name=email, rank=rank, permissions=granted(permissions, rank))


def issue(settings: Settings, *, user_id: int, scopes: frozenset[str], lifetime: timedelta) -> str:
    """A signed token for one person, good for `lifetime` and for nothing beyond `scopes`."""
    now = utc_now()
    claims = {
        "sub": str(user_id),
        "iat": now,
        "exp": now + lifetime,
        "jti": uuid.uuid4().hex,
        "scope": " ".join(sorted(scopes)),
    }
    return str(jwt.encode(claims, settings.security.secret_key.get_secret_value(), algorithm=ALGORITHM))


def read(settings: Settings, token: str) -> tuple[int, frozenset[str]]:
    """The user id and scopes of a token. Unauthorized when it is expired, forged, or misses a claim."""
    key = settings.security.secret_key.get_secret_value()
    options = {"require_exp": True, "require_sub": True}
    try:
        claims = jwt.decode(token, key, algorithms=[ALGORITHM], options=options)
        user_id, scopes = int(claims["sub"]), frozenset(claims.get("scope", "").split())
    except (JWTError, ValueError, OverflowError, AttributeError):  # exp may be Infinity, sub or scope of any type
        raise Unauthorized(EXPIRED_OR_FORGED) from None
    if not 0 < user_id <= MAX_ID:
        raise Unauthorized(EXPIRED_OR_FORGED)
    return user_id, scopes


async def recognise_bearer(connection: HTTPConnection, session: AsyncSession) -> Principal | None:
    """The person behind `Authorization: Bearer …`. One statement; None when the header is of another kind."""
    kind, _, token = connection.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        return None
    user_id, scopes = read(connection.app.state.settings, token.strip())
    user = await session.get(User, user_id)
    if user is None or not user.is_active:
        raise Unauthorized(EXPIRED_OR_FORGED)
    session.info["caller"] = user  # kept alive, so that a route about oneself finds it without a second statement
    person = principal_of(user_id, user.email, user.role, connection.app.state.registry.permissions)
    return replace(person, permissions=person.permissions & scopes)
