"""The page of one record: two who edit it at once, its history, what belongs to it."""

import html
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta

import httpx2
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.models import key_of, utc_now
from backend.features.users.models import User, UserSession
from backend.testing import Console, MakeUser

Statements = Callable[[], AbstractContextManager[list[str]]]


def hidden(page: httpx2.Response, name: str = "version") -> str:
    found = re.search(rf'name="{name}" type="hidden" value="([^"]*)"', page.text)
    assert found, page.text
    return found[1]


def sent(user: User, **fields: str) -> dict[str, str]:
    """The form of an account, as a browser sends it."""
    return {"email": user.email, "full_name": user.full_name, "role": user.role, "is_active": "y"} | fields


# --- two at once ---------------------------------------------------------------------------------------------------


async def test_who_saves_second_sees_the_difference_and_may_overwrite_knowingly(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    ada, grace = await make_user("admin"), await make_user("admin")
    user = await make_user("user", full_name="Before")
    address = f"/admin/user/edit/{user.id}"
    hers, his = await console(ada.email), await console(grace.email)
    version = hidden(await his.get(address))
    theirs = sent(user, full_name="Hers <b>", version=hidden(await hers.get(address)))
    assert (await hers.post(address, data=theirs)).status_code == 302

    clash = await his.post(address, data=sent(user, full_name="His", role="staff", version=version))
    assert clash.status_code == 409
    text = html.unescape(clash.text)
    assert "Somebody else changed this record in the meantime" in text
    assert re.search(r"Changed( by \S+)? a moment ago", text)
    cells = re.findall(r'<td data-label="[^"]+">([^<]*)</td>', clash.text)
    assert cells == ["Name", "Hers &lt;b&gt;", "His", "Rank", "user", "staff"]
    assert 'value="His"' in clash.text, "what was typed is kept"
    assert f'href="http://localhost{address}"' in clash.text
    await session.refresh(user)
    assert user.full_name == "Hers <b>"

    again = sent(user, full_name="His", version=hidden(clash))
    assert (await his.post(address, data=again)).status_code == 302
    await session.refresh(user)
    assert (user.full_name, user.version) == ("His", 3)


async def test_the_page_of_a_clash_never_shows_a_password(
    console: Console, make_user: MakeUser, as_admin: httpx2.AsyncClient
) -> None:
    browser, user = await console((await make_user("admin")).email), await make_user("user")
    version = hidden(await browser.get(f"/admin/user/edit/{user.id}"))
    await as_admin.patch(f"/api/v1/users/{user.id}", json={"full_name": "Meanwhile"})
    data = sent(user, password="Nautilus-1954-x", version=version)
    clash = await browser.post(f"/admin/user/edit/{user.id}", data=data)
    assert clash.status_code == 409
    assert "Nautilus-1954-x" not in clash.text
    assert user.password_hash not in clash.text


async def test_other_refusals_are_no_clash(console: Console, make_user: MakeUser) -> None:
    browser, user = await console((await make_user("admin")).email), await make_user("user")
    other = await make_user("user")
    page = await browser.get(f"/admin/user/edit/{user.id}")
    answer = await browser.post(f"/admin/user/edit/{user.id}", data=sent(user, email=other.email, version=hidden(page)))
    assert answer.status_code == 400
    assert "Stored now" not in answer.text


# --- looking up ----------------------------------------------------------------------------------------------------


async def found(browser: httpx2.AsyncClient, text: str) -> list[str]:
    answer = await browser.get("/admin/user/lookup", params={"q": text})
    assert answer.status_code == 200, answer.text
    return [one["text"] for one in answer.json()["results"]]


async def test_records_are_suggested_by_how_their_name_begins_by_key_and_then_by_what_is_in_it(
    console: Console, make_user: MakeUser
) -> None:
    ada = await make_user("user", email="ada@example.org", full_name="Countess of Lovelace")
    adam = await make_user("user", email="adam_x%@example.org")
    browser = await console((await make_user("admin")).email)
    assert set(await found(browser, "Ada")) == {f"{ada} ({ada.id})", f"{adam} ({adam.id})"}
    assert await found(browser, "adam_x%") == [f"{adam} ({adam.id})"]
    assert await found(browser, "LOVELACE") == [f"{ada} ({ada.id})"]
    assert (await found(browser, str(ada.id)))[0] == f"{ada} ({ada.id})"
    assert await found(browser, "%") == [f"{adam} ({adam.id})"], "it means itself"
    assert await found(browser, "") == await found(browser, "nobody") == []
    for bad in ("x" * 101, "a\x00"):
        assert (await browser.get("/admin/user/lookup", params={"q": bad})).status_code == 400


async def test_there_are_at_most_twenty_suggestions_in_a_bounded_number_of_statements(
    console: Console, make_user: MakeUser, session: AsyncSession, statements: Statements
) -> None:
    browser = await console((await make_user("admin")).email)
    session.add_all(User(email=f"many{number}@example.org", password_hash="!") for number in range(30))
    await session.commit()
    await browser.get("/admin/")  # which makes the caller known
    with statements() as none:
        await browser.get("/admin/user/lookup")
    with statements() as many:
        assert len(await found(browser, "many")) == 20
    assert len(many) == len(none) + 1
    with statements() as few:
        assert len(await found(browser, "7")) > 1
    assert len(few) <= len(none) + 4


async def test_who_is_not_signed_in_gets_no_suggestions(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/admin/user/lookup?q=a")).status_code == 302


# --- what belongs to a record --------------------------------------------------------------------------------------


async def test_a_records_page_shows_the_newest_of_what_belongs_to_it(
    console: Console, make_user: MakeUser, session: AsyncSession, statements: Statements
) -> None:
    admin, user = await make_user("admin"), await make_user("user")
    browser = await console(admin.email)
    await browser.get("/admin/")  # which makes the caller known
    with statements() as few:
        page = (await browser.get(f"/admin/user/details/{user.id}")).text
    section = page.split(">Sessions</h2>")[1].split("</section>")[0]
    assert section.count("<tr>") == 2, "a heading, and the one that came with the account"
    assert "Show in the list" in section
    soon = utc_now() + timedelta(hours=1)
    session.add_all(UserSession(user_id=key_of(user), sid=f"s{one}", kind="token", expires_at=soon) for one in range(7))
    await session.commit()
    with statements() as many:
        page = (await browser.get(f"/admin/user/details/{user.id}")).text
    section = page.split(">Sessions</h2>")[1].split("</section>")[0]
    assert section.count("<tr>") == 6
    assert "Show all" in section
    assert f"?f_user_id={user.id}" in section
    assert len(many) == len(few)
    assert not [one for one in many if "count(" in one.lower()]
