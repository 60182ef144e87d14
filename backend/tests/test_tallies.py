"""What happens is counted when it is stored, under labels that are known before."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from fastapi import FastAPI
from sqlalchemy import literal
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.events import Event, emit
from backend.core.figures import Figures
from backend.core.tallies import Tally

SOLD = Tally("boxes_sold", "Boxes sold.", label="size", values=("small", "large"))
SEEN = Tally("boxes_seen", "Boxes looked at.")


@dataclass(frozen=True, kw_only=True)
class BoxSold(Event):
    pass


def reading(app: FastAPI) -> dict[str, dict[tuple[str, ...], float]]:
    return {figure.name: dict(found) for figure, found in Figures(app, (SOLD.figure, SEEN.figure)).read()}


@pytest.fixture
async def counting(make_app: Callable[..., FastAPI]) -> FastAPI:
    return make_app(DATABASE_URL="sqlite://")


async def test_all_series_are_there_from_the_start(counting: FastAPI) -> None:
    assert reading(counting) == {"boxes_sold": {("small",): 0, ("large",): 0}, "boxes_seen": {(): 0}}


async def test_what_is_stored_counts_and_what_is_taken_back_does_not(counting: FastAPI) -> None:
    async with counting.state.database.session() as session:
        SOLD.add(session, "large", many=3)
        assert reading(counting)["boxes_sold"]["large",] == 0
        await session.commit()
        assert reading(counting)["boxes_sold"]["large",] == 3
        await session.exec(select(literal(1)))
        SOLD.add(session, "small")
        await session.rollback()
        await session.commit()
    SEEN.add_now(counting)
    assert reading(counting) == {"boxes_sold": {("small",): 0, ("large",): 3}, "boxes_seen": {(): 1}}


async def test_events_are_counted(counting: FastAPI) -> None:
    counting.state.database.info["handlers"] = {BoxSold: (SOLD.hear("small"),)}
    async with counting.state.database.session() as session:
        await emit(session, BoxSold())
        await session.commit()
    assert reading(counting)["boxes_sold"]["small",] == 1


async def test_nobody_makes_series_up(counting: FastAPI) -> None:
    with pytest.raises(ValueError, match="ada@example"):
        SOLD.add_now(counting, "ada@example.com")
    with pytest.raises(ValueError, match="huge"):
        SOLD.hear("huge")


async def test_a_session_of_no_app_is_not_counted() -> None:
    async with AsyncSession() as session:
        SEEN.add(session)
        assert "after_commit" not in session.info
