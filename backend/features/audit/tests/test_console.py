"""The audit log in the console: shown, searched, and never written."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx2
import pytest
from sqlmodel import func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.features.audit.models import AuditEntry
from backend.testing import Console, MakeUser, act

VIEW = "/admin/audit-entry"
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"
Statements = Callable[[], AbstractContextManager[list[str]]]


@pytest.fixture
async def browser(console: Console, make_user: MakeUser) -> httpx2.AsyncClient:
    return await console((await make_user("admin")).email)


async def plant(session: AsyncSession, **fields: Any) -> AuditEntry:
    fields = {"action": "users.updated", "via": "token"} | fields
    entry = AuditEntry(**fields)
    session.add(entry)
    await session.commit()
    return entry


async def test_before_and_after_are_shown_and_secrets_are_not(
    browser: httpx2.AsyncClient, session: AsyncSession
) -> None:
    changes = {"full_name": ["Ada Byron", "Ada Lovelace"], "password_hash": ["•••", "•••"], "role": [None, "staff"]}
    entry = await plant(session, changes=changes, actor_id=7, actor_name="boss@example.com", subject_type="users")
    listed = (await browser.get(f"{VIEW}/list")).text
    assert "full_name, password_hash, role" in listed
    assert "boss@example.com" in listed
    page = (await browser.get(f"{VIEW}/details/{entry.id}")).text
    assert "<del>Ada Byron</del> → <ins>Ada Lovelace</ins>" in page
    assert '<del><span class="nothing">none</span></del> → <ins>staff</ins>' in page
    assert "changed, kept secret" in page


async def test_events_show_their_details(browser: httpx2.AsyncClient, session: AsyncSession) -> None:
    entry = await plant(session, action="role.changed", details={"before": "user", "after": "staff", "n": 1})
    assert "before: user, after: staff, n: 1" in (await browser.get(f"{VIEW}/list")).text
    assert "<li><strong>after</strong>: staff</li>" in (await browser.get(f"{VIEW}/details/{entry.id}")).text


async def test_what_people_write_is_text_and_never_markup(browser: httpx2.AsyncClient, session: AsyncSession) -> None:
    entry = await plant(
        session,
        changes={"full_name": [HOSTILE, HOSTILE]},
        details={HOSTILE: HOSTILE},
        actor_id=1,
        actor_name=HOSTILE,
        user_agent=HOSTILE,
    )
    await plant(session, details={HOSTILE: HOSTILE})
    for page in ("list", f"list?search={HOSTILE}", f"details/{entry.id}"):
        text = (await browser.get(f"{VIEW}/{page}")).text
        assert "<script>alert" not in text
        assert "<img src=x" not in text


async def test_it_is_searched_and_sorted(browser: httpx2.AsyncClient, session: AsyncSession) -> None:
    await plant(session, action="planted.first", address="203.0.113.7")
    await plant(session, action="planted.second", address="203.0.113.8")
    found = (await browser.get(f"{VIEW}/list?search=203.0.113.7")).text
    assert "planted.first" in found
    assert "planted.second" not in found
    page = (await browser.get(f"{VIEW}/list?search=planted&sortBy=action&sort=asc")).text
    assert page.index("planted.first") < page.index("planted.second")


async def test_nobody_writes_it(browser: httpx2.AsyncClient, session: AsyncSession) -> None:
    entry = await plant(session)
    assert (await browser.post(f"{VIEW}/create", data={"action": "forged"})).status_code == 403
    assert (await browser.post(f"{VIEW}/edit/{entry.id}", data={"action": "forged"})).status_code == 403
    assert (await act(browser, "audit-entry", "delete", entry.id)).status_code == 404
    await session.refresh(entry)
    assert entry.action == "users.updated"
    assert (await session.exec(select(func.count()).where(AuditEntry.action == "forged"))).one() == 0
    page = (await browser.get(f"{VIEW}/list")).text
    assert "data-delete" not in page
    assert "New audit entry" not in page


async def test_staff_do_not_see_it(console: Console, make_user: MakeUser) -> None:
    browser = await console((await make_user("staff")).email)
    assert (await browser.get(f"{VIEW}/list")).status_code == 403
    assert "audit-entry" not in (await browser.get("/admin/")).text


@pytest.mark.parametrize("rows", [1, 60])
async def test_a_list_takes_two_statements_whatever_its_size(
    browser: httpx2.AsyncClient, session: AsyncSession, statements: Statements, rows: int
) -> None:
    session.add_all(AuditEntry(action="planted.entry", via="system") for _ in range(rows))
    await session.commit()
    await browser.get("/admin/user/create")
    with statements() as seen:
        assert (await browser.get(f"{VIEW}/list?pageSize=100&search=planted")).text.count("planted.entry") >= rows
    assert len(seen) == 2, seen
