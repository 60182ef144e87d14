"""Secrets at rest: AES-256-GCM, with a key derived from `SECURITY__SECRET_KEY` for nothing else.

A stolen copy of the database gives no codes. What a previous secret key encrypted can be read until it is renewed, and
a row copied to another account opens nothing.
"""

import base64
import secrets
from binascii import Error as BadBase64

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backend.core.config import Settings

NONCE = 12  # bytes, at random: NIST SP 800-38D §8.2.2


class Unreadable(ValueError):
    """No key of ours encrypted it: the one that did is gone from the settings, or it is somebody else's."""


def _ring() -> list[AESGCM]:
    return [AESGCM(key) for key in Settings.current().security.keys_for("two_factor: secrets at rest")]


def encrypted(text: str, user_id: int) -> str:
    nonce = secrets.token_bytes(NONCE)
    return base64.b64encode(nonce + _ring()[0].encrypt(nonce, text.encode(), str(user_id).encode())).decode()


def decrypted(sealed: str, user_id: int) -> str:
    """Unreadable when it is none of ours, or not this account's."""
    for key in _ring():
        try:
            raw = base64.b64decode(sealed, validate=True)
            return key.decrypt(raw[:NONCE], raw[NONCE:], str(user_id).encode()).decode()
        except (InvalidTag, BadBase64, ValueError):
            continue
    raise Unreadable
