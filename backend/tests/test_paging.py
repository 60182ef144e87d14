"""Totals: exact as long as that is cheap, then an estimate that says so."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx2
import pytest
from sqlalchemy import text
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core import paging
from backend.core.paging import PageQuery, counted, paged
from backend.features.users.models import User
from backend.testing import PASSWORD_HASH

Statements = Callable[[], AbstractContextManager[list[str]]]
PEOPLE = 60


@pytest.fixture
async def people(session: AsyncSession) -> None:
    session.add_all(User(email=f"p{number}@example.com", password_hash=PASSWORD_HASH) for number in range(PEOPLE))
    await session.commit()


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize(("page", "statements_sent"), [(1, 2), (3, 1), (4, 2)], ids=["full", "last", "beyond"])
async def test_only_a_page_that_may_not_be_the_last_is_counted(
    session: AsyncSession, statements: Statements, page: int, statements_sent: int
) -> None:
    everybody = select(User).where(User.role == "user").order_by(col(User.id))
    with statements() as seen:
        rows, total = await paged(session, everybody, PageQuery(page=page, page_size=25))
    assert len(rows) == {1: 25, 3: 10, 4: 0}[page]
    assert total == (PEOPLE, True)
    assert len([one for one in seen if "FROM users" in one]) == statements_sent, seen


@pytest.mark.usefixtures("people")
async def test_beyond_the_bound_the_total_is_an_estimate(
    session: AsyncSession, monkeypatch: pytest.MonkeyPatch, database_name: str
) -> None:
    monkeypatch.setattr(paging, "EXACT_UP_TO", 50)
    if database_name == "postgresql":
        await (await session.connection()).execute(text("ANALYZE users"))
    total = await counted(session, select(User).where(User.role == "user", User.email != "%s :x"))
    assert not total.exact
    assert total.number == (51 if database_name != "postgresql" else total.number)
    assert 51 <= total.number <= PEOPLE + 1
    assert await counted(session, select(User).where(User.role == "staff")) == (0, True)


@pytest.mark.usefixtures("people")
async def test_an_estimate_is_flagged_in_the_answer(
    as_admin: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = await as_admin.get("/api/v1/users")
    assert int(exact.headers["X-Total-Count"]) == exact.json()["total"] == PEOPLE + 1
    assert "X-Total-Estimated" not in exact.headers
    monkeypatch.setattr(paging, "EXACT_UP_TO", 50)
    for answer in (await as_admin.get("/api/v1/users"), await as_admin.head("/api/v1/users")):
        assert answer.headers["X-Total-Estimated"] == "true"
        assert int(answer.headers["X-Total-Count"]) > 50
