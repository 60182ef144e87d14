"""What is remembered between the start of a sign-in and the return from the provider: in a cookie, encrypted.

The cookie is what binds the return to the browser that began: an address with somebody else's code is worthless in it.
"""

import hmac
import secrets
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwe import JWERegistry
from joserfc.jwk import OctKey
from starlette.requests import Request

from backend.core.config import Settings
from backend.features.external_sign_in.errors import NotStartedHere

COOKIE = "external_sign_in"
LIFETIME = 600  # seconds, for the person to sign in over there
HEADER = {"alg": "dir", "enc": "A256GCM"}
REGISTRY = JWERegistry(algorithms=list(HEADER.values()))


def _random() -> str:
    return secrets.token_urlsafe(32)


@dataclass(frozen=True, kw_only=True)
class Flow:
    """One attempt. `sid`: of the session that asked to link; empty when somebody signs in."""

    provider: str
    next: str = ""
    sid: str = ""
    state: str = field(default_factory=_random)  # comes back in the address
    nonce: str = field(default_factory=_random)  # comes back in the ID token
    verifier: str = field(default_factory=_random)  # PKCE (RFC 7636): the code is worthless without it


def _keys(settings: Settings) -> Iterator[OctKey]:
    """Keys for nothing else, of the present secret key and of earlier ones."""
    for key in settings.security.keys_for("external sign-in"):
        yield OctKey.import_key(key)


def seal(settings: Settings, flow: Flow) -> str:
    claims = asdict(flow) | {"exp": int(time.time()) + LIFETIME}
    return jwt.encode(HEADER, claims, next(_keys(settings)), registry=REGISTRY)


def _unseal(settings: Settings, sealed: str) -> Flow | None:
    for key in _keys(settings):
        try:
            claims = jwt.decode(sealed, key, registry=REGISTRY).claims
        except (JoseError, ValueError):  # not one of ours, or of another key
            continue
        if claims.pop("exp") > time.time():
            return Flow(**claims)
    return None


def resumed(request: Request, provider: str, state: str) -> Flow:
    """The attempt that this browser began and this return belongs to; NotStartedHere without one."""
    flow = _unseal(request.app.state.settings, request.cookies.get(COOKIE, ""))
    if flow is None or flow.provider != provider:
        raise NotStartedHere
    if not hmac.compare_digest(flow.state.encode(), state.encode("utf-8", "replace")):
        raise NotStartedHere
    return flow


def cookie(request: Request) -> dict[str, Any]:
    """How the cookie is set and taken away. Lax, as the provider sends people back from its own site."""
    secure = request.app.state.settings.environment != "development"
    path = f"{request.scope.get('root_path', '')}/api"
    return {"key": COOKIE, "path": path, "httponly": True, "samesite": "lax", "secure": secure}
