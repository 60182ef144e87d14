"""Password hashing: argon2id, off the event loop, never more at once than the settings allow.

bcrypt hashes from elsewhere are accepted and replaced at the next sign-in. RFC 9106 describes argon2id.
"""

from functools import cache

import anyio
import anyio.to_thread
from passlib.context import CryptContext

from backend.core.errors import Unprocessable
from backend.features.users.settings import UsersSettings

CONTEXT = CryptContext(schemes=["argon2", "bcrypt"], deprecated="auto", argon2__type="ID")
MIN_DISTINCT = 5  # characters
MIN_NAME = 3  # characters; shorter ones are in many a good password


@cache
def _slots() -> anyio.CapacityLimiter:
    return anyio.CapacityLimiter(UsersSettings.current().hashing_concurrency)


@cache
def _nobodys_hash() -> str:
    return str(CONTEXT.hash("nobody's password"))


def check_strength(password: str, email: str) -> None:
    """Unprocessable, saying what to change, when a new password is too easy to guess."""
    minimum = UsersSettings.current().password_min_length
    problem = None
    if len(password) < minimum:
        problem = f"Use at least {minimum} characters"
    elif len(set(password)) < MIN_DISTINCT:
        problem = f"Use at least {MIN_DISTINCT} different characters"
    elif len(name := email.split("@", 1)[0].lower()) >= MIN_NAME and name in password.lower():
        problem = "Leave your e-mail address out of it"
    if problem:
        details = [{"field": "body.password", "message": problem, "type": "weak_password"}]
        raise Unprocessable(f"This password is too weak: {problem.lower()}", details=details)


async def hash_password(password: str) -> str:
    return str(await anyio.to_thread.run_sync(CONTEXT.hash, password, limiter=_slots()))


def _verify(password: str, stored: str | None) -> tuple[bool, str | None]:
    try:
        ok, replacement = CONTEXT.verify_and_update(password, stored or "")
    except ValueError:  # no hash at all; or bcrypt, which refuses what is longer than the 72 bytes it reads
        CONTEXT.verify(password, _nobodys_hash())
        return False, None
    return bool(ok), replacement


async def verify_password(password: str, stored: str | None) -> tuple[bool, str | None]:
    """Whether the password fits, and a better hash to store when the old one is of an outdated kind.

    `stored=None` (no such account) takes as long as a wrong password, so that time does not tell who has an account.
    bcrypt hashes from elsewhere take a time of their own until the first sign-in replaces them.
    """
    return await anyio.to_thread.run_sync(_verify, password, stored, limiter=_slots())
