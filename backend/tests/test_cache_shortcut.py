"""What skips FastAPI's dependencies skips none that matters."""

from typing import Annotated

import pytest
from fastapi import Depends
from fastapi.security import SecurityScopes

from backend.core.auth import Caller, InPerson, Principal, requires
from backend.core.cache.shortcut import scopes_of
from backend.core.db import Session
from backend.core.read_session import ReadSession

SCOPES = requires("a:read", "b:read")


async def of_a_caller(caller: Annotated[Principal, SCOPES], session: Session, q: str = "") -> None: ...
async def of_anybody_signed_in(number: int, session: ReadSession, caller: Caller) -> None: ...
async def of_a_person(caller: InPerson, session: ReadSession) -> None: ...
async def of_more(caller: Caller, more: Annotated[str, Depends(lambda: "")]) -> None: ...
async def of_more_by_default(caller: Caller, more: str = Depends(lambda: "")) -> None: ...
async def of_nobody(session: ReadSession) -> None: ...


@pytest.mark.parametrize(
    ("route", "scopes"),
    [
        (of_a_caller, ["a:read", "b:read"]),
        (of_anybody_signed_in, []),
        (of_a_person, None),
        (of_more, None),
        (of_more_by_default, None),
        (of_nobody, None),
    ],
)
def test_only_routes_of_a_caller_and_sessions_take_it(route: object, scopes: list[str] | None) -> None:
    found = scopes_of(route, others=False)
    assert (found.scopes if isinstance(found, SecurityScopes) else None) == scopes
    assert scopes_of(route, others=True) is None
