"""Who is calling and what they may do. Features recognise callers (`Authenticator`); routes state what they require."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Annotated, Any, Protocol

from fastapi import Depends, Security
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection, Request

from backend.core import context
from backend.core.errors import Forbidden, Unauthorized


class Rank(IntEnum):
    """The three ready-made kinds of people. A permission names the lowest rank that holds it."""

    USER = 0
    STAFF = 1
    ADMIN = 2


@dataclass(frozen=True, kw_only=True)
class Permission:
    """Something a caller may do, in OAuth2 scope spelling: `items:write`."""

    name: str
    summary: str
    rank: Rank
    console: bool = False  # of use in the console only: access tokens do not spell it out


@dataclass(frozen=True, kw_only=True)
class Actor:
    """Who really acts, where somebody acts as somebody else."""

    id: int
    name: str


@dataclass(frozen=True, kw_only=True)
class Principal:
    """An authenticated caller. `permissions` is what this very token may use: never more than the person holds."""

    id: int
    name: str
    rank: Rank
    permissions: frozenset[str] = field(default_factory=frozenset)
    via: str = "token"  # what they showed: `token`, `console`, `api_key`, `impersonation`
    credential: int | None = None  # the key of what they showed in its table: a session's, an API key's
    narrowed: bool = False  # whether they asked for a token that may do less than they
    signed_in_at: datetime | None = None  # when the session began; refreshing does not renew it
    actor: Actor | None = None  # in an impersonation: whose hands these are

    def may(self, permission: str) -> bool:
        return permission in self.permissions


def granted(permissions: Mapping[str, Permission], rank: Rank) -> frozenset[str]:
    """The names of the permissions that `rank` holds."""
    return frozenset(name for name, permission in permissions.items() if permission.rank <= rank)


def console_only(permissions: Mapping[str, Permission]) -> frozenset[str]:
    """The names of those that are of use in the console only."""
    return frozenset(name for name, permission in permissions.items() if permission.console)


# Reads the credential it knows from a request; None when there is none of its kind, Unauthorized when it is no good.
# Callers that are known already cost no SQL, nor a session: it opens one of its own for the others.
Authenticator = Callable[[HTTPConnection], Awaitable[Principal | None]]


class ConsoleSignIn(Protocol):
    """How staff sign in to the console with server-side sessions; exactly one feature provides it.

    Tokens are opaque and unguessable; the store keeps only their hash, so that a leaked table opens nothing.
    """

    @property
    def lifetime(self) -> timedelta:
        """For how long a session is good."""
        ...

    async def start(self, request: Request, name: str, password: str) -> str | None:
        """Check name and password; the new session's token, or None when they are wrong or the person may not enter.

        SecondFactorRequired when that is not enough; another AppError when there were too many attempts.
        """
        ...

    async def finish(self, request: Request, pending: str, code: str) -> str | None:
        """The second step, after SecondFactorRequired; an AppError when the code is wrong, or it took too long."""
        ...

    async def resume(self, request: Request, session: AsyncSession, token: str) -> Principal | None:
        """The person behind a token, or None when it is unknown, expired, ended, or the person may no longer enter."""
        ...

    async def end(self, session: AsyncSession, token: str) -> None:
        """Make the token worthless at once."""
        ...

    def is_recent(self, principal: Principal) -> bool:
        """Whether they signed in a moment ago, so that a dangerous action need not ask for the password again."""
        ...

    async def prove(self, request: Request, principal: Principal, password: str) -> bool:
        """Whether this is their password; an AppError when there were too many attempts."""
        ...


CONSOLE_COOKIE = "console_session"  # sent to all of the app's pages, of which some show more to staff


def console_cookie(request: Request) -> dict[str, Any]:
    """How a page of the console sets its cookie, and deletes it: for the whole app, behind whatever proxy prefix."""
    path, stage = request.scope.get("app_root_path") or "/", request.app.state.settings.environment
    secure = stage != "development"
    return {"key": CONSOLE_COOKIE, "path": path, "httponly": True, "samesite": "strict", "secure": secure}


async def console_principal(request: Request) -> Principal | None:
    """Who is signed in to the console, in a page outside of it that only shows; None when nobody is."""
    sign_in: ConsoleSignIn | None = request.app.state.registry.console_sign_in
    token = request.cookies.get(CONSOLE_COOKIE)
    if sign_in is None or not token:
        return None
    async with request.app.state.database.session(reading=True) as session:
        principal = await sign_in.resume(request, session, token)
    if principal is not None:
        remember(request, principal)
    return principal


async def recognised(connection: HTTPConnection) -> Principal | None:
    """Who shows a credential that is good; None when none is shown, Unauthorized when it is no good."""
    authenticators: tuple[Authenticator, ...] = connection.app.state.registry.authenticators
    for recognise in authenticators:
        if principal := await recognise(connection):
            return principal
    return None


class Authenticate(OAuth2PasswordBearer):
    """The caller, or 401; 403 when a required permission is missing. No SQL for a caller known already.

    One dependency, and itself the security scheme that OpenAPI shows: each further one would cost every request.
    """

    async def __call__(self, connection: HTTPConnection, required: SecurityScopes) -> Principal:  # type: ignore[override]
        principal = await recognised(connection)
        if principal is None:
            raise Unauthorized
        remember(connection, principal)
        if not principal.permissions.issuperset(required.scopes):
            raise Forbidden(details={"missing": sorted(set(required.scopes) - principal.permissions)})
        return principal


authenticate = Authenticate(tokenUrl="/api/v1/auth/token", scheme_name="OAuth2")


def remember(connection: HTTPConnection, principal: Principal) -> None:
    """Let code that has no request at hand know who is calling."""
    connection.state.principal = principal


def current_principal() -> Principal | None:
    """Who sent the request being served; None outside a request, and while nobody is known."""
    principal = context.state("principal")
    return principal if isinstance(principal, Principal) else None


def requires(*permissions: str) -> Any:
    """`caller: Annotated[Principal, requires("items:write")]`: visible in OpenAPI as the operation's scopes."""
    return Security(authenticate, scopes=list(permissions))


# Anybody who is signed in.
Caller = Annotated[Principal, Security(authenticate)]


NOT_THEM = "You act as somebody else: this is for them alone"


async def in_person(caller: Caller) -> Principal:
    """Forbidden for programs, and for who acts as somebody else. OpenAPI offers these operations no API key."""
    if caller.via == "api_key":
        raise Forbidden("Sign in for this: an API key cannot change how an account is entered")
    if caller.actor is not None:
        raise Forbidden(NOT_THEM)
    return caller


# Anybody who is signed in with a session, for what a program has no business with: passwords, sessions, keys.
InPerson = Annotated[Principal, Depends(in_person)]
