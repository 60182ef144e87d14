"""Access tokens: JWT (RFC 7519), HS256, short-lived, signed with a ring of keys of which the first signs.

Refresh tokens are opaque. Each one's successor is derived from it with the secret key, so that a client whose answer
got lost can be told the same again, and nothing but hashes is stored.
"""

import base64
import hashlib
import hmac
import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from jose import JWTError, jwt

from backend.core.auth import Actor
from backend.core.config import Settings
from backend.core.db import MAX_ID
from backend.core.errors import Unauthorized
from backend.core.models import utc_now

ALGORITHM = "HS256"
TYPE = "at+jwt"  # RFC 9068 §2.1: an access token, whatever else may be signed one day
EXPIRED_OR_FORGED = "This token is expired, was revoked, or is not one of ours"


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What an access token says. `expires`: seconds since 1970."""

    user_id: int
    sid: str
    scopes: frozenset[str]
    expires: float
    actor: Actor | None = None


def sha256(token: str) -> str:
    """SHA-256 is enough for 256 random bits; slow hashes are for passwords, which people choose."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def key_id(key: bytes) -> str:
    """The name of a key in token headers (RFC 7515 §4.1.4); it tells nothing about the key."""
    return hashlib.sha256(b"key id" + key).hexdigest()[:12]


def _ring(settings: Settings) -> tuple[bytes, ...]:
    return settings.security.keys_for("access tokens")


def issue(
    settings: Settings,
    *,
    user_id: int,
    sid: str,
    scopes: frozenset[str],
    lifetime: timedelta,
    actor: Actor | None = None,
) -> str:
    """A signed token for one person's session, good for `lifetime` and for nothing beyond `scopes`.

    `actor`: who uses it in that person's place (RFC 8693 §4.1).
    """
    now = utc_now()
    claims: dict[str, Any] = {
        "iss": settings.api.title,
        "aud": settings.api.title,
        "sub": str(user_id),
        "sid": sid,
        "iat": now,
        "exp": now + lifetime,
        "jti": uuid.uuid4().hex,
        "scope": " ".join(sorted(scopes)),
    }
    if actor is not None:
        claims["act"] = {"sub": str(actor.id), "email": actor.name}
    key = _ring(settings)[0]
    return str(jwt.encode(claims, key, algorithm=ALGORITHM, headers={"kid": key_id(key), "typ": TYPE}))


def read(settings: Settings, token: str) -> Claims:
    """What a token says. Unauthorized when it is expired, forged, signed with no key of ours, or misses a claim."""
    options = {f"require_{name}": True for name in ("exp", "sub", "iss", "aud")}
    try:
        head = jwt.get_unverified_header(token)
        key = {key_id(key): key for key in _ring(settings)}[head["kid"]]
        name = settings.api.title
        claims = jwt.decode(token, key, algorithms=[ALGORITHM], options=options, audience=name, issuer=name)
        user_id, scopes = int(claims["sub"]), frozenset(claims.get("scope", "").split())
        sid, expires = claims["sid"], float(claims["exp"])
        actor = Actor(id=int(claims["act"]["sub"]), name=str(claims["act"]["email"])) if "act" in claims else None
    # exp may be Infinity; kid, sub, sid or scope of any type, or missing
    except (JWTError, ValueError, OverflowError, AttributeError, KeyError, TypeError):
        raise Unauthorized(EXPIRED_OR_FORGED) from None
    if head.get("typ") != TYPE or not 0 < user_id <= MAX_ID or not isinstance(sid, str) or not sid.isalnum():
        raise Unauthorized(EXPIRED_OR_FORGED)
    return Claims(user_id=user_id, sid=sid, scopes=scopes, expires=expires, actor=actor)


def successor(settings: Settings, refresh_token: str) -> str:
    """The refresh token that follows this one: 256 bits that nobody without the secret key can tell."""
    key = settings.security.keys_for("refresh tokens")[0]
    mac = hmac.digest(key, refresh_token.encode("utf-8", "replace"), "sha256")
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
