"""What happened, told to whoever wants to know, in the same transaction: `await emit(session, PasswordChanged(…))`.

A feature declares its events as frozen dataclasses, and listens by `Feature.on = {PasswordChanged: handler}`. Handlers
run at once, in registry order; what one raises refuses the whole. What must wait for the commit (mail, caches) is left
to `backend.core.commits.after_commit`.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from sqlmodel.ext.asyncio.session import AsyncSession


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, kw_only=True)
class SecurityEvent(Event):
    """Something that belongs in a log of who did what. Its fields are written there: no secrets among them.

    `user_id`: the account that it is about, None when there is none (a sign-in to an address that nobody has).
    """

    action: ClassVar[str]  # noun.verb: `password.changed`
    user_id: int | None

    def details(self) -> dict[str, Any]:
        """The fields besides the account."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.name != "user_id"}


Handler = Callable[[AsyncSession, Any], Awaitable[None]]
Handlers = Mapping[type[Event], tuple[Handler, ...]]


def gathered(declared: Iterable[Mapping[type[Event], Handler]]) -> Handlers:
    """The features' declarations put together, in their order."""
    handlers: dict[type[Event], tuple[Handler, ...]] = {}
    for mapping in declared:
        for kind, handler in mapping.items():
            handlers[kind] = (*handlers.get(kind, ()), handler)
    return handlers


async def emit(session: AsyncSession, event: Event) -> None:
    """Tell those who listen to this kind of event, or to one of its bases."""
    handlers: Handlers = session.info.get("handlers", {})
    for kind in type(event).__mro__:
        for handler in handlers.get(kind, ()):
            await handler(session, event)
