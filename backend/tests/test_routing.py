"""What skips FastAPI's dependencies skips none that matters."""

from typing import Annotated, Any

import httpx2
import pytest
from fastapi import Depends

from backend.core.auth import Caller, InPerson, Principal, requires
from backend.core.db import Session
from backend.core.read_session import ReadSession
from backend.core.routing import ShortRoute
from backend.features import FEATURES

SCOPES = requires("a:read", "b:read")


async def of_a_caller(caller: Annotated[Principal, SCOPES], session: Session, q: str = "") -> None: ...
async def of_anybody_signed_in(number: int, session: ReadSession, caller: Caller) -> None: ...
async def of_a_person(caller: InPerson, session: ReadSession) -> None: ...
async def of_more(caller: Caller, more: Annotated[str, Depends(lambda: "")]) -> None: ...
async def of_more_by_default(caller: Caller, more: str = Depends(lambda: "")) -> None: ...
async def of_nobody(session: ReadSession) -> None: ...
async def of_two(session: Session, reading: ReadSession, caller: Caller) -> None: ...


@pytest.mark.parametrize(
    ("route", "scopes"),
    [
        (of_a_caller, ["a:read", "b:read"]),
        (of_anybody_signed_in, []),
        (of_nobody, []),
        (of_a_person, None),
        (of_more, None),
        (of_more_by_default, None),
        (of_two, None),
    ],
)
def test_only_routes_of_a_caller_and_a_session_take_it(route: Any, scopes: list[str] | None) -> None:
    placed = ShortRoute("/x", route)
    assert (placed.needs.scopes.scopes if placed.needs else None) == scopes
    assert len(placed.dependant.dependencies) == (1 if route is of_nobody else 3 if route is of_two else 2)
    assert ShortRoute("/x", route, dependencies=[Depends(lambda: "")]).needs is None


@pytest.mark.skipif("items" not in FEATURES, reason="the items feature is not in this tree")
async def test_strangers_hear_nothing_about_their_mistakes(client: httpx2.AsyncClient) -> None:
    for body in ("{", "{}"):
        answer = await client.post("/api/v1/store/items", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 401
