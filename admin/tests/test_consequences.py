"""What the page that asks before deleting says about what refers to the records."""

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, Integer, Table, insert
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from admin.consequences import MOST, consequences
from backend.core.models import key_of, utc_now
from backend.features.users.models import User, UserSession
from backend.testing import Console, MakeUser

NAMES = {"sessions": "Sessions"}


@pytest.fixture
def keepsakes() -> Iterator[Table]:
    """A table that needs its accounts, as some feature may have one. It is in no database that others see."""
    table = Table(
        "test_keepsakes",
        SQLModel.metadata,
        Column("id", Integer, primary_key=True),
        Column("user_id", Integer, ForeignKey("users.id", ondelete="RESTRICT"), index=True),
    )
    yield table
    SQLModel.metadata.remove(table)


async def told(session: AsyncSession, *users: User) -> list[str]:
    return [str(one) for one in await consequences(session, User, [key_of(user) for user in users], NAMES)]


async def test_it_is_counted_by_the_names_of_the_console(make_user: MakeUser, session: AsyncSession) -> None:
    ada, grace = await make_user(), await make_user()
    assert await told(session, ada) == ["Sessions: 1 deleted as well"]
    assert await told(session, ada, grace) == ["Sessions: 2 deleted as well"]


async def test_the_page_says_so(console: Console, make_user: MakeUser) -> None:
    admin, user = await make_user("admin"), await make_user()
    browser = await console(admin.email)
    page = await browser.post("/admin/user/action/delete", data={"pks": str(user.id)})
    assert "What refers to it" in page.text
    assert "<li>Sessions: 1 deleted as well</li>" in page.text


async def test_what_needs_a_record_keeps_it_from_being_deleted(
    console: Console, make_user: MakeUser, session: AsyncSession, keepsakes: Table
) -> None:
    admin, user = await make_user("admin"), await make_user()
    connection = await session.connection()
    # without the key itself: temporary tables have none, and the page reads it from the code
    columns = "(id INTEGER PRIMARY KEY, user_id INTEGER)"
    await connection.exec_driver_sql(f"CREATE TEMPORARY TABLE IF NOT EXISTS test_keepsakes {columns}")
    await connection.execute(insert(keepsakes), [{"id": 1, "user_id": user.id}, {"id": 2, "user_id": user.id}])
    await session.commit()
    assert "Test keepsakes: 2 in the way: they need it" in await told(session, user)
    page = await (await console(admin.email)).post("/admin/user/action/delete", data={"pks": str(user.id)})
    assert "nothing can be deleted" in page.text
    assert re.search(r'<button class="btn btn-danger" type="submit" disabled>', page.text)


async def test_many_are_told_as_more_than_so_many_without_counting_all(
    make_user: MakeUser, session: AsyncSession
) -> None:
    user, soon = await make_user(), utc_now() + timedelta(hours=1)
    now: dict[str, Any] = {"user_id": user.id, "kind": "token", "method": "password", "address": "", "user_agent": ""}
    now |= {"created_at": soon, "last_seen_at": soon, "expires_at": soon}
    rows = [{"sid": f"s{number}", **now} for number in range(MOST + 50)]
    await (await session.connection()).execute(insert(UserSession), rows)
    assert await told(session, user) == ["Sessions: more than 10,000 deleted as well"]
