"""What makes two requests the same: their Idempotency-Key, and a fingerprint of all that the answer depends on."""

import hashlib
import hmac
import re
from collections.abc import Iterable

from starlette.types import Scope

from backend.core.auth import Principal
from backend.core.config import SecuritySettings
from backend.features.idempotency.errors import BadIdempotencyKey

HEADER = "Idempotency-Key"
PURPOSE = "idempotency: fingerprints"
# A string of structured fields (RFC 9651 §3.3.3), or what most clients send: the bare value.
QUOTED = r'"(?:[ !#-\[\]-~]|\\["\\]){1,255}"'
BARE = r"[!#-~][!-~]{0,254}"
SHAPE = re.compile(f"{QUOTED}|{BARE}")
ESCAPED = re.compile(r'\\(["\\])')


def shown_in(scope: Scope) -> list[bytes]:
    """The header's values; hardly ever more than one."""
    return [value for name, value in scope["headers"] if name == b"idempotency-key"]


def key_of(values: list[bytes]) -> str:
    """The key, without quotes: `"a"` and `a` are the same. BadIdempotencyKey when it is none."""
    text = values[0].decode("latin-1")
    if len(values) > 1 or not SHAPE.fullmatch(text):
        raise BadIdempotencyKey
    return ESCAPED.sub(r"\1", text[1:-1]) if text.startswith('"') else text


def digest(parts: Iterable[bytes]) -> bytes:
    """SHA-256; each part with its length, so that none runs into the next."""
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8))
        found.update(part)
    return found.digest()


def fingerprints(scope: Scope, principal: Principal, body: bytes, security: SecuritySettings) -> tuple[str, ...]:
    """Of the request, and of what the caller may do: a replay passes no route that would check it again.

    One per secret key, the first for now. Keyed, as a body may hold a password: a stolen table must not help guess it.
    """
    kinds = [value for name, value in scope["headers"] if name == b"content-type"]
    caller = " ".join([principal.via, *sorted(principal.permissions)])
    request = scope["method"].encode(), scope["path"].encode("utf-8", "replace"), scope["query_string"]
    found = digest([*request, b", ".join(kinds), caller.encode(), body])
    return tuple(hmac.digest(key, found, "sha256").hex() for key in security.keys_for(PURPOSE))
