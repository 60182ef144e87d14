"""The history of a record, as the console shows and restores it. A feature that keeps one is its `Feature.history`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sqlmodel.ext.asyncio.session import AsyncSession


@dataclass(frozen=True)
class Held:
    """What a field held, in JSON's types. Not `whole`: a secret, a cut text, or not known; it cannot be restored."""

    value: Any
    whole: bool = True
    secret: bool = False


@dataclass(frozen=True, kw_only=True)
class Change:
    """What somebody did to a record in one go."""

    id: int  # grows with time
    at: datetime
    by: str
    what: str  # `created`, `updated`, `deleted`
    fields: Mapping[str, tuple[Held, Held]]  # before and after, by attribute


class History(Protocol):
    """Reads what has been done to the record of a table that has this key."""

    async def newest(
        self, session: AsyncSession, table: str, key: str, *, before: int | None = None, limit: int
    ) -> Sequence[Change]:
        """Up to `limit` changes, newest first, from the one before id `before` on."""
        ...

    async def following(
        self, session: AsyncSession, table: str, key: str, *, after: int, limit: int
    ) -> Sequence[Change]:
        """Up to `limit` changes, oldest first, from the one after id `after` on."""
        ...


def undone(changes: Iterable[Change]) -> dict[str, Held]:
    """What the fields held before these changes, oldest first. Fields that they leave alone are not in it."""
    held: dict[str, Held] = {}
    for change in changes:
        for name, (before, _) in change.fields.items():
            held.setdefault(name, before)
    return held
