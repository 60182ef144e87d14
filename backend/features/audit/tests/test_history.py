"""The history of a record in the console, and putting it back as it was."""

import html
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.features.audit.models import AuditEntry
from backend.features.users.models import User
from backend.testing import PASSWORD, Console, MakeUser, axe, new_client

Statements = Callable[[], AbstractContextManager[list[str]]]


@pytest.fixture
async def browser(console: Console, make_user: MakeUser) -> httpx2.AsyncClient:
    return await console((await make_user("admin", email="root@example.com")).email)


async def edit(browser: httpx2.AsyncClient, user: User, **fields: str) -> None:
    data = {"email": user.email, "full_name": user.full_name, "role": user.role, "is_active": "y"} | fields
    answer = await browser.post(f"/admin/user/edit/{user.id}", data=data)
    assert answer.status_code == 302, answer.text


async def changes_of(session: AsyncSession, user: User) -> list[int]:
    """The keys of the changes of an account, oldest first."""
    statement = select(AuditEntry.id).where(
        AuditEntry.subject_id == str(user.id), col(AuditEntry.action).startswith("users.")
    )
    return [one for one in await session.exec(statement.order_by(col(AuditEntry.id))) if one]


def cells(page: httpx2.Response) -> list[list[str]]:
    rows = re.findall(r"<tr>\s*<td(.*?)</tr>", page.text, re.DOTALL)
    found = [re.findall(r"<td[^>]*>(.*?)</td>", f"<td{row}", re.DOTALL) for row in rows]
    return [[html.unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in row] for row in found]


def restoring(user: User, change: int, moment: str) -> str:
    return f"/admin/user/restore/{user.id}?change={change}&moment={moment}"


def version_in(page: httpx2.Response) -> dict[str, str]:
    found = re.search(r'name="version" value="(\d+)"', page.text)
    assert found, page.text
    return {"version": found[1]}


async def test_the_page_of_a_record_leads_to_who_changed_what_newest_first(
    browser: httpx2.AsyncClient, make_user: MakeUser
) -> None:
    user = await make_user("user", full_name="First")
    await edit(browser, user, full_name="<i>Second</i>")
    await edit(browser, user, full_name="Third", password="Nautilus-1954-x")
    details = await browser.get(f"/admin/user/details/{user.id}")
    assert f'href="http://localhost/admin/user/history/{user.id}"' in details.text
    page = await browser.get(f"/admin/user/history/{user.id}")
    assert ["Name", "<i>Second</i>", "Third"] in cells(page)
    assert ["Name", "First", "<i>Second</i>"] in cells(page)
    assert ["Password hash", "changed, kept secret"] in cells(page)
    assert "$argon2" not in page.text
    headings = re.findall(r'<h2 id="change-\d+">(\w+) by ([^,]+),', page.text)
    assert [one[0] for one in headings] == ["Changed", "Changed", "Created"]
    assert headings[0][1] == "root@example.com"


async def test_a_record_is_put_back_as_it_was_after_a_look_at_what_changes(
    browser: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession
) -> None:
    user = await make_user("user", full_name="First")
    await edit(browser, user, full_name="Second", role="staff")
    await edit(browser, user, full_name="Third", role="staff")
    await edit(browser, user, full_name="Fourth", role="staff", password="Nautilus-1954-x")
    _, second, third, _ = await changes_of(session, user)
    hashed = (await session.exec(select(User.password_hash).where(User.id == user.id))).one()

    look = await browser.get(restoring(user, second, "before"))
    assert cells(look) == [["Name", "Fourth", "First"], ["Rank", "staff", "user"]]
    assert "Password hash: the history does not keep all of it" in look.text
    after = await browser.get(restoring(user, third, "after"))
    assert cells(after) == [["Name", "Fourth", "Third"]]
    await session.refresh(user)
    assert user.full_name == "Fourth", "looking changes nothing"

    done = await browser.post(restoring(user, second, "before"), data=version_in(look))
    assert (done.status_code, done.headers["location"]) == (303, f"http://localhost/admin/user/details/{user.id}")
    await session.refresh(user)
    assert (user.full_name, user.role, user.password_hash) == ("First", "user", hashed)
    assert "User is as it was before that change." in (await browser.get(done.headers["location"])).text
    assert len(await changes_of(session, user)) == 5, "putting back is a change itself"
    nothing = await browser.get(restoring(user, second, "before"))
    assert "There is nothing to put back" in nothing.text


async def test_what_the_log_does_not_hold_whole_stays(
    browser: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession
) -> None:
    user = await make_user("user", full_name="First")
    await edit(browser, user, full_name="Second", role="staff")
    change = (await changes_of(session, user))[-1]
    cut = {"full_name": ["x" * 1000 + "… (3000 characters)", "Second"], "role": ["user", "staff"]}
    await session.exec(update(AuditEntry).where(col(AuditEntry.id) == change).values(changes=cut))
    await session.commit()
    look = await browser.get(restoring(user, change, "before"))
    assert cells(look) == [["Rank", "staff", "user"]]
    assert "Name: the history does not keep all of it" in look.text
    assert (await browser.post(restoring(user, change, "before"), data=version_in(look))).status_code == 303
    await session.refresh(user)
    assert (user.full_name, user.role) == ("Second", "user")


async def test_who_restores_overwrites_nobody_who_was_faster(
    browser: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession
) -> None:
    user = await make_user("user", full_name="First")
    await edit(browser, user, full_name="Second")
    change = (await changes_of(session, user))[-1]
    address = restoring(user, change, "before")
    version = version_in(await browser.get(address))
    await edit(browser, user, full_name="Third")
    refused = await browser.post(address, data=version)
    assert refused.status_code == 409
    assert "Somebody else changed this record" in refused.text
    assert cells(refused) == [["Name", "Third", "First"]]
    assert (await browser.post(address)).status_code == 409, "without a version nothing is overwritten"
    await session.refresh(user)
    assert user.full_name == "Third"
    assert (await browser.post(address, data=version_in(refused))).status_code == 303


async def test_the_rules_of_the_form_hold_for_what_is_put_back(
    browser: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession
) -> None:
    user, thief = await make_user("user", email="ada@example.com"), await make_user("user")
    await edit(browser, user, email="new@example.com")
    change = (await changes_of(session, user))[-1]
    await edit(browser, thief, email="ada@example.com")
    look = await browser.get(restoring(user, change, "before"))
    refused = await browser.post(restoring(user, change, "before"), data=version_in(look))
    assert refused.status_code == 409
    assert "already" in refused.text
    empty = {"role": ["emperor", "user"]}
    await session.exec(update(AuditEntry).where(col(AuditEntry.id) == change).values(changes=empty))
    await session.commit()
    refused = await browser.post(restoring(user, change, "before"), data=version_in(look))
    assert refused.status_code == 422
    assert "is not allowed any more" in refused.text


async def test_who_may_not_edit_may_look_and_not_restore(
    console: Console, browser: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession
) -> None:
    user = await make_user("user", full_name="First")
    await edit(browser, user, full_name="Second")
    change = (await changes_of(session, user))[-1]
    staff = await console((await make_user("staff")).email)
    page = await staff.get(f"/admin/user/history/{user.id}")
    assert ["Name", "First", "Second"] in cells(page)
    assert "/admin/user/restore/" not in page.text
    assert "/admin/user/restore/" in (await browser.get(f"/admin/user/history/{user.id}")).text
    for method in ("GET", "POST"):
        assert (await staff.request(method, restoring(user, change, "before"))).status_code == 403
    await session.refresh(user)
    assert user.full_name == "Second"


async def test_changes_of_other_records_and_bad_addresses_are_not_found(
    browser: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession
) -> None:
    user, other = await make_user("user", full_name="First"), await make_user("user")
    await edit(browser, user, full_name="Second")
    [created, changed] = await changes_of(session, user)
    for address in (
        restoring(other, changed, "before"),
        restoring(user, created, "before"),
        restoring(user, changed, "sideways"),
        restoring(user, 2**31 - 1, "after"),
        f"/admin/user/restore/{user.id}?change=x&moment=before",
        f"/admin/user/restore/{user.id}",
        f"/admin/user/history/{2**31 - 1}",
        f"/admin/user/history/{user.id}?before=x",
        "/admin/user/history/x",
        "/admin/nothing/history/1",
    ):
        assert (await browser.get(address)).status_code == 404, address


async def test_a_long_history_comes_in_pages_and_each_costs_the_same(
    browser: httpx2.AsyncClient, make_user: MakeUser, statements: Statements
) -> None:
    user = await make_user("user", full_name="Name 0")
    for number in range(1, 24):
        await edit(browser, user, full_name=f"Name {number}")
    with statements() as few:
        await browser.get(f"/admin/user/history/{2**31 - 1}")
    with statements() as many:
        first = await browser.get(f"/admin/user/history/{user.id}")
    assert len(many) == len(few)
    assert first.text.count("<h2 id=") == 20
    [following] = re.findall(r'href="([^"]+\?before=\d+)"', first.text)
    second = await browser.get(following)
    assert second.text.count("<h2 id=") == 4
    assert "Created by" in second.text
    assert "Earlier changes" not in second.text


async def test_the_history_of_a_deleted_record_can_still_be_read(
    browser: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession
) -> None:
    user = await make_user("user", full_name="First")
    key = user.id
    await session.delete(user)
    await session.commit()
    session.add(AuditEntry(action="users.deleted", subject_type="users", subject_id=str(key), via="system"))
    await session.commit()
    page = await browser.get(f"/admin/user/history/{key}")
    assert page.status_code == 200
    assert f"History of User {key}, which is gone" in page.text
    assert "/admin/user/restore/" not in page.text


async def test_what_somebody_did_is_on_their_page_for_those_who_may_read_the_log(
    console: Console, browser: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession
) -> None:
    await edit(browser, await make_user("user"), full_name="Renamed")
    root = (await session.exec(select(User).where(User.email == "root@example.com"))).one()
    staff = await console((await make_user("staff")).email)
    heading = ">Audit log</h2>"
    shown = (await browser.get(f"/admin/user/details/{root.id}")).text
    assert "users.updated" in shown.split(heading)[1].split("</section>")[0]
    assert heading not in (await staff.get(f"/admin/user/details/{root.id}")).text


async def test_without_this_feature_there_is_no_history(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(FEATURES_OFF="audit")
    await app.state.database.start()
    async with new_client(app, headers={"Sec-Fetch-Site": "same-origin"}) as client:
        await client.post("/api/v1/auth/signup", json={"email": "ada@example.com", "password": PASSWORD})
        async with app.state.database.engine.begin() as connection:
            await connection.exec_driver_sql("UPDATE users SET role = 'admin'")
        await client.post("/admin/login", data={"username": "ada@example.com", "password": PASSWORD})
        page = await client.get("/admin/user/details/1")
        history = await client.get("/admin/user/history/1")
    await app.state.database.close()
    assert page.status_code == 200
    assert "History" not in page.text
    assert history.status_code == 404


# The same form, sent from somewhere else meanwhile.
SAVE_ELSEWHERE = """async () => {
  const form = new FormData(document.querySelector("form.card"));
  form.set("full_name", "Hers");
  await fetch(location.href, { method: "POST", body: form });
}"""


@pytest.mark.browser
async def test_a_person_edits_with_a_conflict_and_restores_from_the_history(fresh_server: str, page: Any) -> None:
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.goto(f"{fresh_server}/admin/login")
    await page.get_by_label("E-mail address").fill("admin@example.com")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("heading", name="Console").wait_for()

    await page.goto(f"{fresh_server}/admin/user/edit/1")
    await page.evaluate(SAVE_ELSEWHERE)
    await page.get_by_label("Name", exact=True).fill("His")
    await page.get_by_role("button", name="Save", exact=True).click()
    await page.get_by_role("heading", name="Changed by admin@example.com").wait_for()
    await page.get_by_role("row", name="Name Hers His").wait_for()
    assert await axe(page) == []
    await page.set_viewport_size({"width": 360, "height": 740})
    assert not await page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    await page.get_by_role("button", name="Save mine over it").click()
    await page.get_by_role("heading", name="Users").wait_for()

    await page.goto(f"{fresh_server}/admin/user/details/1")
    utc = page.locator("dd time").first
    assert (await utc.get_attribute("title") or "").endswith(" UTC")
    assert not (await utc.text_content() or "").endswith(" UTC")
    await page.get_by_role("link", name="History").click()
    await page.get_by_role("heading", name="History of").wait_for()
    assert not await page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    assert await axe(page) == []
    await page.get_by_role("link", name="Restore as before this").first.click()
    await page.get_by_role("heading", name="as it was before that change").wait_for()
    assert await axe(page) == []
    await page.get_by_text("Hers").wait_for()
    await page.get_by_role("button", name="Restore", exact=True).click()
    await page.get_by_text("User is as it was before that change.").wait_for()
    await page.locator("dd", has_text="Hers").wait_for()
    assert problems == []
