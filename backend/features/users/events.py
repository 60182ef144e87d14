"""What happens to accounts. Others listen by `Feature.on`; the first three may be refused by whoever listens."""

from dataclasses import dataclass, field
from typing import ClassVar

from backend.core.auth import Rank
from backend.core.events import Event, SecurityEvent
from backend.features.users.models import User


@dataclass(frozen=True, kw_only=True)
class SignInAttempted(Event):
    """Somebody shows a password for this address, whoever has it. Asked before anything is looked up or hashed."""

    email: str


@dataclass(frozen=True, kw_only=True)
class IdentityProven(Event):
    """The password fits, or another issuer vouches for them. Raise here when more is needed.

    `code` is what they gave as second factor, empty when nothing. `method`: `password`, or the issuer's name.
    """

    user: User
    method: str
    code: str = ""


@dataclass(frozen=True, kw_only=True)
class PermissionsAsked(Event):
    """What may this person do? `held` has what their rank holds; add to it. What they hold but may not use for now goes
    from there to `withheld`.
    """

    user_id: int
    rank: Rank
    held: set[str]
    withheld: set[str] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True)
class SignInFailed(SecurityEvent):
    """A wrong password or code, or an account that may not sign in; `reason` says which, to us alone."""

    action: ClassVar[str] = "sign_in.failed"
    email: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class SignedIn(SecurityEvent):
    """A session has begun. `kind`: `token` or `console`; `method`: `password`, or the issuer's name."""

    action: ClassVar[str] = "sign_in.succeeded"
    session_id: int
    kind: str
    method: str


@dataclass(frozen=True, kw_only=True)
class SessionsEnded(SecurityEvent):
    """Sign-out, or the end of several sessions at once; `reason` says why."""

    action: ClassVar[str] = "sessions.ended"
    sessions: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class RefreshTokenReplayed(SecurityEvent):
    """A refresh token came back after its successor was given out: somebody has a copy. The session has been ended."""

    action: ClassVar[str] = "refresh_token.replayed"
    session_id: int


@dataclass(frozen=True, kw_only=True)
class AccountCreated(SecurityEvent):
    """Somebody signed up, or an administrator made an account."""

    action: ClassVar[str] = "account.created"
    email: str


@dataclass(frozen=True, kw_only=True)
class AccountDeleted(SecurityEvent):
    """An account goes for good; it is still there when this is heard."""

    action: ClassVar[str] = "account.deleted"
    email: str


@dataclass(frozen=True, kw_only=True)
class PasswordChanged(SecurityEvent):
    """By its owner, by a reset, or by an administrator."""

    action: ClassVar[str] = "password.changed"
    user_id: int
    email: str


@dataclass(frozen=True, kw_only=True)
class AccountReclaimed(SecurityEvent):
    """By a mail, somebody took over an account whose address nobody had verified: a stranger may have made it.

    Whoever keeps a way into accounts closes those of this one.
    """

    action: ClassVar[str] = "account.reclaimed"
    user_id: int


@dataclass(frozen=True, kw_only=True)
class EmailChanged(SecurityEvent):
    """The account has another address, which nobody has verified yet."""

    action: ClassVar[str] = "email.changed"
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class EmailVerified(SecurityEvent):
    """The person has shown that they read mail to this address."""

    action: ClassVar[str] = "email.verified"
    email: str


@dataclass(frozen=True, kw_only=True)
class RoleChanged(SecurityEvent):
    """The built-in role is another one: `user`, `staff`, `admin`."""

    action: ClassVar[str] = "role.changed"
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class ActiveChanged(SecurityEvent):
    """An account was deactivated, or activated again."""

    action: ClassVar[str] = "account.active_changed"
    active: bool
