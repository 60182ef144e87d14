"""Stored answers: what is kept of one, sealed with AES-256-GCM under a key derived for nothing else.

An answer with `Cache-Control: no-store` holds something that is shown once: it is not kept at all (RFC 9111 §5.2.2.5).
"""

import base64
import json
import secrets
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from starlette.types import Message, Send

from backend.core.config import SecuritySettings

Headers = list[tuple[bytes, bytes]]

PURPOSE = "idempotency: stored answers"
NONCE = 12  # bytes, at random: NIST SP 800-38D §8.2.2
# Of the headers, those of the answer itself: not cookies, nor what says how many requests are left.
KEPT = frozenset(
    f"content-{name}".encode() for name in ("disposition", "language", "length", "location", "type")
) | frozenset((b"cache-control", b"etag", b"last-modified", b"link", b"location"))


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One that can be given again."""

    status: int
    headers: Headers
    body: bytes

    async def send_again(self, send: Send) -> None:
        headers = [*self.headers, (b"idempotent-replayed", b"true")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def kept_of(start: Message, body: bytes, largest: int) -> Answer | None:
    """What is worth storing of an answer; None when it must not, or cannot, be stored."""
    headers = [(name, value) for name, value in start["headers"] if name in KEPT]
    secret = any(name == b"cache-control" and b"no-store" in value.lower() for name, value in headers)
    return None if secret or len(body) > largest else Answer(status=start["status"], headers=headers, body=body)


def sealed(answer: Answer, security: SecuritySettings, place: str) -> str:
    """`place`: the row that it is for; in another one it cannot be opened."""
    head = [answer.status, [[name.decode("latin-1"), value.decode("latin-1")] for name, value in answer.headers]]
    nonce = secrets.token_bytes(NONCE)
    ring = security.keys_for(PURPOSE)
    text = json.dumps(head).encode() + b"\n" + answer.body
    return base64.b64encode(nonce + AESGCM(ring[0]).encrypt(nonce, text, place.encode())).decode()


def opened(stored: str, security: SecuritySettings, place: str) -> Answer | None:
    """None when the secret key that it was sealed with is gone from the settings."""
    raw = base64.b64decode(stored)
    for key in security.keys_for(PURPOSE):
        try:
            text = AESGCM(key).decrypt(raw[:NONCE], raw[NONCE:], place.encode())
        except InvalidTag:
            continue
        head, _, body = text.partition(b"\n")
        status, pairs = json.loads(head)
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        return Answer(status=status, headers=headers, body=body)
    return None
