"""What the lockout does, for the log of who did what."""

from dataclasses import dataclass
from typing import ClassVar

from backend.core.events import SecurityEvent


@dataclass(frozen=True, kw_only=True)
class SignInDelayed(SecurityEvent):
    """A delay begins, or grows. `kind` says of what: `pair` (account and address), `account` or `address`."""

    action: ClassVar[str] = "sign_in.delayed"
    email: str
    kind: str
    seconds: int


@dataclass(frozen=True, kw_only=True)
class LockoutLifted(SecurityEvent):
    """Somebody with the right to do so let them try again at once. `address`: of a delay that is no account's."""

    action: ClassVar[str] = "lockout.lifted"
    address: str = ""
