"""Rate limits, as routes declare them: `dependencies=[limit("items.paged", "600/minute", by="ip")]`.

This is the declaration. The feature `rate_limits` does the counting; without it nothing is limited.
"""

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Any, Literal, Protocol

from fastapi import Depends
from fastapi_limiter.depends import RateLimiter, WebSocketRateLimiter
from pyrate_limiter import Rate
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket

from backend.core import context
from backend.core.auth import Caller, Principal
from backend.core.config import BadSetting
from backend.core.errors import TooManyRequests, Unavailable
from backend.core.rates import Verdict, rate_of

By = Literal["ip", "user", "credential"]  # credential: each API key and each session by itself
WhenAway = Literal["open", "closed"]  # without Redis: count in this process, or refuse


class Limits(Protocol):
    """What counts: in this process, or for all of them."""

    async def take(self, rule: "Rule", who: str) -> Verdict | None:
        """One more for `who`; None when the limit is switched off."""
        ...


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A limit. `shared=False` is counted by each process for itself: for what is too frequent to ask Redis."""

    name: str
    rate: Rate | None
    by: By
    when_away: WhenAway = "open"
    shared: bool = True

    async def take(self, connection: HTTPConnection, who: str) -> None:
        """Count one more; TooManyRequests when it is one too many, Unavailable when nobody can tell."""
        state: dict[str, Any] = connection.scope["state"]
        limits: Limits | None = state.get("limits")
        verdict = await limits.take(self, who) if limits else None
        if verdict is None:
            return
        state.setdefault("rate_limits", {})[self.name] = verdict
        if verdict.outcome == "unavailable":
            raise Unavailable
        if verdict.outcome == "limited":
            raise TooManyRequests(retry_after=verdict.retry_after)


DECLARED: dict[str, Rule] = {}  # by name, of all code that is imported


def _declare(**fields: Any) -> Rule:
    rule = Rule(**fields)
    if rule.name in DECLARED:
        raise BadSetting(f"two limits are called {rule.name}")
    return DECLARED.setdefault(rule.name, rule)


def network_of(address: str) -> str:
    """Who counts as one: an IPv4 address, the /64 of an IPv6 address, which is what one household has."""
    try:
        parsed = ip_address(address) if ":" in address else None
    except ValueError:
        parsed = None
    if not isinstance(parsed, IPv6Address):
        return address
    return str(parsed.ipv4_mapped or f"{IPv6Address(int(parsed) >> 64 << 64)}/64")


def _name_of(caller: Principal, by: By) -> str:
    if by == "credential" and caller.credential is not None:
        return f"{caller.via}:{caller.credential}"
    return f"user:{caller.id}"


async def _by_address(_connection: HTTPConnection) -> str:
    return f"ip:{network_of(context.address())}"


class Limit(RateLimiter):
    """fastapi-limiter's dependency. Its own key trusts any X-Forwarded-For, and fails with included routers."""

    def __init__(self, rule: Rule) -> None:
        super().__init__(limiter=None, identifier=_by_address)  # type: ignore[arg-type]  # it comes with the request
        self.rule = rule

    async def __call__(self, connection: HTTPConnection) -> None:  # type: ignore[override]
        await self.rule.take(connection, await self.identifier(connection))


class CallerLimit(Limit):
    """Needs a caller: strangers get their 401 first."""

    async def __call__(self, connection: HTTPConnection, caller: Caller) -> None:  # type: ignore[override]
        await self.rule.take(connection, _name_of(caller, self.rule.by))


class MessageLimit(WebSocketRateLimiter):
    """`await MESSAGES(socket, caller)` for each message. All sockets of a credential count as one, in each process."""

    def __init__(self, name: str, rate: str) -> None:
        super().__init__(limiter=None)  # type: ignore[arg-type]
        self.rule = _declare(name=name, rate=rate_of(rate), by="credential", shared=False)

    async def __call__(self, ws: WebSocket, caller: Principal) -> None:  # type: ignore[override]
        await self.rule.take(ws, _name_of(caller, "credential"))


def declare(name: str, rate: str, *, by: By, when_away: WhenAway = "open") -> Limit:
    """A limit to be called by hand, `await LIMIT(request)`, where there are no dependencies."""
    rule = _declare(name=name, rate=rate_of(rate), by=by, when_away=when_away)
    return Limit(rule) if by == "ip" else CallerLimit(rule)


def limit(name: str, rate: str, *, by: By, when_away: WhenAway = "open") -> Any:
    """For `dependencies=[…]` of a route; several routes with the same one share it."""
    return Depends(declare(name, rate, by=by, when_away=when_away))
