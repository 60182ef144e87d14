"""Who is behind an API key, and what it may do: what its scopes name, as far as its owner holds it now."""

import re
import time
from dataclasses import replace
from functools import partial
from typing import Any

from sqlmodel import col, select
from starlette.requests import HTTPConnection

from backend.core.auth import Principal
from backend.core.errors import Unauthorized
from backend.core.principals import Principals
from backend.features.api_keys.models import ApiKey
from backend.features.api_keys.service import good
from backend.features.api_keys.uses import Uses
from backend.features.users.authority import principal_of
from backend.features.users.models import User
from backend.features.users.tokens import sha256

HEADER = "X-API-Key"
NO_GOOD = "This API key is expired, was revoked, or is not one of ours"
CHALLENGE = f'ApiKey header="{HEADER}"'
SHAPE = re.compile(r"mk_[A-Za-z0-9]{8}_[A-Za-z0-9_-]{43}")
SECURITY_SCHEMES: dict[str, dict[str, Any]] = {
    "APIKeyHeader": {
        "type": "apiKey",
        "in": "header",
        "name": HEADER,
        "description": "A key of `/api/v1/api-keys`, for services; and on the page `/docs` for people with a second "
        "factor. It opens no operation on passwords, sessions or keys.",
    }
}


async def recognise_key(connection: HTTPConnection) -> Principal | None:
    """The owner of the key in `X-API-Key`; None without one. A bearer token is asked first, and wins."""
    key = connection.headers.get(HEADER)
    if key is None:
        return None
    principals: Principals = connection.app.state.principals
    # No token begins with a blank: neither can be shown as the other.
    principal = await principals.find(f" {HEADER} {key}", partial(_look_up, connection, key))
    uses: Uses = connection.app.state.api_key_uses
    uses.note(principal)
    return principal


async def _look_up(connection: HTTPConnection, key: str) -> tuple[Principal, float | None]:
    """Whose key it is, and for how many seconds; None: for ever."""
    if not SHAPE.fullmatch(key):
        raise Unauthorized(NO_GOOD, challenge=CHALLENGE)
    # By the hash of all of it: how long this takes tells nothing about keys that begin alike.
    statement = select(User, ApiKey).join(ApiKey, col(ApiKey.user_id) == User.id)
    statement = statement.where(ApiKey.key_hash == sha256(key), *good(), col(User.is_active))
    async with connection.app.state.database.session(reading=True) as session:
        row = (await session.exec(statement)).first()
        if row is None:
            raise Unauthorized(NO_GOOD, challenge=CHALLENGE)
        user, shown = row
        person = await principal_of(session, user, via="api_key", credential=shown.id)
    principal = replace(person, permissions=person.permissions & frozenset(shown.scopes.split()))
    left = shown.expires_at.timestamp() - time.time() if shown.expires_at else None
    return principal, left
