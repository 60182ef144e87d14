"""Codes: those that an authenticator app shows (TOTP, RFC 6238), and recovery codes."""

import base64
import secrets
import time
from hmac import compare_digest

import pyotp

PERIOD = 30  # seconds of a step: what every authenticator app takes for granted
DIGITS = 6
WINDOW = 1  # steps before and after the present one: clocks differ, and people type slowly
RECOVERY_CODES = 10
RECOVERY_BYTES = 20  # 160 bits: more than can be tried, even against a stolen hash


def new_secret() -> str:
    return pyotp.random_base32()


def uri(secret: str, *, account: str, issuer: str) -> str:
    """What the QR code says: `otpauth://totp/…`."""
    return pyotp.TOTP(secret, digits=DIGITS, interval=PERIOD).provisioning_uri(name=account, issuer_name=issuer)


def plain(code: str) -> str:
    """A code as people type it, without what they add for looks."""
    return "".join(code.split()).replace("-", "").lower()


def is_of_app(code: str) -> bool:
    """Whether it looks like a code of an app, not like a recovery code."""
    return len(code) == DIGITS and code.isascii() and code.isdecimal()


def step_of(secret: str, code: str) -> int | None:
    """The step for which the app shows this code, when it is the present one or a neighbour; the latest if several."""
    totp, now = pyotp.TOTP(secret, digits=DIGITS, interval=PERIOD), int(time.time()) // PERIOD
    steps = range(now + WINDOW, now - WINDOW - 1, -1)
    return next((step for step in steps if compare_digest(totp.generate_otp(step).encode(), code.encode())), None)


def new_recovery_codes() -> list[str]:
    """Such as `3f4k-qx2m-7abz-p5wn-m2c7-t4vd-kk3x-xq6h`."""
    codes = (base64.b32encode(secrets.token_bytes(RECOVERY_BYTES)).decode().lower() for _ in range(RECOVERY_CODES))
    return ["-".join(code[start : start + 4] for start in range(0, len(code), 4)) for code in codes]
