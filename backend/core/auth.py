"""Who is calling and what they may do. Features recognise callers (`Authenticator`); routes state what they require."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum
from typing import Annotated, Any, Protocol

from fastapi import Depends, Security
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection, Request

from backend.core.db import Session
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


@dataclass(frozen=True, kw_only=True)
class Principal:
    """An authenticated caller. `permissions` is what this very token may use: never more than the person holds."""

    id: int
    name: str
    rank: Rank
    permissions: frozenset[str] = field(default_factory=frozenset)

    def may(self, permission: str) -> bool:
        return permission in self.permissions


def granted(permissions: Mapping[str, Permission], rank: Rank) -> frozenset[str]:
    """The names of the permissions that `rank` holds."""
    return frozenset(name for name, permission in permissions.items() if permission.rank <= rank)


# Reads the credential it knows from a request; None when there is none of its kind, Unauthorized when it is no good.
Authenticator = Callable[[HTTPConnection, AsyncSession], Awaitable[Principal | None]]


class ConsoleSignIn(Protocol):
    """How staff sign in to the console with server-side sessions; exactly one feature provides it.

    Tokens are opaque and unguessable; the store keeps only their hash, so that a leaked table opens nothing.
    """

    @property
    def lifetime(self) -> timedelta:
        """For how long a session is good."""
        ...

    async def start(self, request: Request, session: AsyncSession, name: str, password: str) -> str | None:
        """Check name and password; the new session's token, or None when they are wrong or the person is not staff."""
        ...

    async def resume(self, request: Request, session: AsyncSession, token: str) -> Principal | None:
        """The person behind a token, or None when it is unknown, expired, ended, or the person is no longer staff."""
        ...

    async def end(self, session: AsyncSession, token: str) -> None:
        """Make the token worthless at once."""
        ...


oauth2 = OAuth2PasswordBearer(tokenUrl="/api/v1/auth/token", auto_error=False, scheme_name="OAuth2")


async def authenticate(
    connection: HTTPConnection,
    session: Session,
    required: SecurityScopes,
    _documented: Annotated[str | None, Depends(oauth2)],
) -> Principal:
    """The caller, or 401; 403 when a required permission is missing. One SQL statement per request at most."""
    authenticators: tuple[Authenticator, ...] = connection.app.state.registry.authenticators
    principal = None
    for recognise in authenticators:
        if principal := await recognise(connection, session):
            break
    if principal is None:
        raise Unauthorized
    if missing := sorted(set(required.scopes) - principal.permissions):
        raise Forbidden(details={"missing": missing})
    return principal


def requires(*permissions: str) -> Any:
    """`caller: Annotated[Principal, requires("items:write")]`: visible in OpenAPI as the operation's scopes."""
    return Security(authenticate, scopes=list(permissions))


# Anybody who is signed in.
Caller = Annotated[Principal, Security(authenticate)]
