"""What can be done to records in the console besides editing them: by POST, after a page that asks for confirmation.

    @record_action("Deactivate", question="They are signed out everywhere.", done="deactivated", dangerous=True)
    async def deactivate(self, session: AsyncSession, record: User, caller: Principal) -> None: ...

In a view, it becomes a button on the record and above the list, and a permission: `users:deactivate`. It is run for all
that were selected in one transaction, or for none of them; for very many, record by record (`Feature.long_actions`).

A feature adds actions to another one's view by `Feature.record_actions = {"user": (RecordAction(…),)}`, with a
permission of its own.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from starlette.requests import Request

from backend.core.auth import Rank
from backend.core.events import SecurityEvent

# The view, a session that is committed afterwards, a record, and who asks; `reason`, where one has to be given.
Run = Callable[..., Awaitable[Any]]
REASON_MAX = 200  # characters
F = TypeVar("F", bound=Run)

TOLD_AT_ONCE = 80  # ids in one event: the audit log cuts values at 1,000 characters


@dataclass(frozen=True, kw_only=True)
class RecordAction:
    """One of a view's actions. `name`: in addresses and permissions, `reset_password`."""

    name: str
    label: str
    question: str  # what will happen, below "Deactivate 3 users?"
    done: str  # the past participle: "3 users deactivated"
    run: Run
    dangerous: bool = False  # asks for the password, unless the person signed in a moment ago
    rank: Rank | None = None  # the lowest that holds its permission; None: the one that the view names
    asks_reason: bool = False
    template: str = ""  # shows what `run` has returned, once; for one record, from its own page
    permission: str = ""  # in place of the view's own, `users:deactivate`; somebody declares it


def record_action(
    label: str, *, question: str, done: str, dangerous: bool = False, rank: Rank | None = None
) -> Callable[[F], F]:
    """Offer this method of a view as an action. What it raises refuses the whole."""

    def offer(run: F) -> F:
        run.offered = RecordAction(  # type: ignore[attr-defined]
            name=run.__name__, label=label, question=question, done=done, run=run, dangerous=dangerous, rank=rank
        )
        return run

    return offer


def offered(view: type) -> Iterator[RecordAction]:
    """The actions of a view, in the order in which they are written, those of its bases first."""
    names = dict.fromkeys(name for kind in reversed(view.__mro__) for name in vars(kind))
    for name in names:
        if isinstance(action := getattr(getattr(view, name, None), "offered", None), RecordAction):
            yield action


@dataclass(frozen=True, kw_only=True)
class LongAction:
    """One for more records than a transaction should hold: all that a list's query finds, up to a key."""

    view: str  # its identity
    action: str  # its name
    label: str  # "Deactivate users"
    query: str  # of the list's address
    total: int  # records that match now
    up_to: int  # the highest of their keys: what is made later is not meant


# Begins it, for the person whose request this is; returns the address of a page that shows how far it is.
StartsLongActions = Callable[[Request, LongAction], Awaitable[str]]


@dataclass(frozen=True, kw_only=True)
class ConsoleActed(SecurityEvent):
    """Somebody did something to several records at once. What changed in each is told apart."""

    action: ClassVar[str] = "console.acted"
    user_id: int | None = None
    view: str
    done: str
    ids: Sequence[int]


def acted(view: str, done: str, ids: Sequence[int]) -> Iterator[ConsoleActed]:
    """Who does something to many records tells it in pieces that a log keeps whole."""
    for start in range(0, len(ids), TOLD_AT_ONCE):
        yield ConsoleActed(view=view, done=done, ids=ids[start : start + TOLD_AT_ONCE])
