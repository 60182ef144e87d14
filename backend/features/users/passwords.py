"""Password hashing: argon2id, off the event loop, never more at once than the settings allow.

bcrypt hashes from elsewhere are accepted and replaced at the next sign-in. RFC 9106 describes argon2id.
"""

import asyncio
import os
import re
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

import anyio.to_thread
from passlib.context import CryptContext
from zxcvbn import zxcvbn

from backend.core.config import Settings
from backend.core.errors import Unprocessable
from backend.features.users.settings import UsersSettings

T = TypeVar("T")

# RFC 9106 §4, second recommended option (64 MiB, 3 passes), with one lane instead of four: the same work for those who
# guess, and never more threads than `hashing_concurrency` says. OWASP's minimum is 19 MiB and 2 passes.
CONTEXT = CryptContext(
    schemes=["argon2", "bcrypt"],
    deprecated="auto",
    argon2__type="ID",
    argon2__memory_cost=65536,
    argon2__time_cost=3,
    argon2__parallelism=1,
)
NICENESS = 10  # of 0 to 19: below every request, and yet some of a core that others want, too
UNUSABLE = "!"  # in place of a hash: no password fits
MIN_DISTINCT = 5  # characters
STRONG = 3  # of zxcvbn's 0 to 4: more than 10^8 guesses, "safely unguessable" while hashes stay slow
ESTIMATED = 72  # characters; what comes after them is not weighed, as that takes quadratic time
MIN_NAME = 3  # characters; shorter ones are in many a good password


def _step_back() -> None:
    """Let a hash run only where nothing else wants the core: a storm of sign-ins shall not stall other requests.

    On Linux a priority is a thread's (setpriority(2), notes); elsewhere it would be the whole process's.
    """
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(UsersSettings.current().hashing_concurrency, "passwords", _step_back)


async def _aside(compute: Callable[..., T], *arguments: object) -> T:
    return await asyncio.get_running_loop().run_in_executor(_threads(), compute, *arguments)


@cache
def _nobodys_hash() -> str:
    return str(CONTEXT.hash("nobody's password"))


def _guessable(password: str, words: list[str]) -> str | None:
    """What is wrong with a password that can be guessed, by zxcvbn: lists of common ones, names, patterns."""
    found = zxcvbn(password[:ESTIMATED], user_inputs=words)
    if found["score"] >= STRONG:
        return None
    return str(found["feedback"]["warning"] or "it is easy to guess. Add another word or two").rstrip(".")


async def check_strength(password: str, email: str, full_name: str = "") -> None:
    """Unprocessable, saying what to change, when a new password is too easy to guess."""
    rules = UsersSettings.current()
    name = email.split("@", 1)[0].lower()
    words = [email, *re.split(r"\W+", f"{email} {full_name} {Settings.current().api.title}"), *rules.password_words]
    problem = None
    if len(password) < rules.password_min_length:
        problem = f"Use at least {rules.password_min_length} characters"
    elif len(set(password)) < MIN_DISTINCT:
        problem = f"Use at least {MIN_DISTINCT} different characters"
    elif len(name) >= MIN_NAME and name in password.lower():
        problem = "Leave your e-mail address out of it"
    else:
        problem = await anyio.to_thread.run_sync(_guessable, password, words)
    if problem:
        details = [{"field": "body.password", "message": problem, "type": "weak_password"}]
        raise Unprocessable(f"This password is too weak: {problem[0].lower()}{problem[1:]}", details=details)


async def hash_password(password: str) -> str:
    return str(await _aside(CONTEXT.hash, password))


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
    return await _aside(_verify, password, stored)
