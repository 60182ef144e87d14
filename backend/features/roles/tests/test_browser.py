"""Roles in a real browser: made in the grid, given, and what somebody sees who holds nothing else."""

from typing import Any

import httpx2
import pytest

from backend.features import FEATURES
from backend.testing import ON_VIOLATION, PASSWORD, axe

ADMIN, ADA = "admin@example.com", "ada@example.org"
OWN_PAGES = {"Home", "Profile"} | ({"Second factor"} if "two_factor" in FEATURES else set())
CLOSED = ("role/list", "user/list", "user/details/1", "item/create", "item/edit/1", "item/import")
CLOSED_FORMS = ("item/action/delete", "item/action/purge", "item/edit-list")


async def watched(page: Any) -> list[str]:
    """What the page complains about: scripts that fail, what the Content-Security-Policy stops, refusals."""
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.add_init_script(ON_VIOLATION)
    return problems


async def sign_in(page: Any, server: str, address: str) -> None:
    await page.goto(f"{server}/admin/login")
    await page.get_by_label("E-mail address").fill(address)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("heading", name="Console").wait_for()


async def save(page: Any) -> None:
    await page.get_by_role("button", name="Save", exact=True).click()


async def opened(page: Any, server: str) -> list[int]:
    """The statuses of `CLOSED`, and of forms sent to `CLOSED_FORMS` from the console's own pages."""
    send = "async path => (await fetch(path, {method: 'POST', body: new URLSearchParams({pks: '1'})})).status"
    forms = [await page.evaluate(send, f"/admin/{address}") for address in CLOSED_FORMS]
    return [(await page.goto(f"{server}/admin/{address}")).status for address in CLOSED] + forms


async def buttons(page: Any) -> list[str]:
    """All that can be pressed on the page itself, what is folded up included."""
    return [text.strip() for text in await page.locator("main button, main summary").all_text_contents()]


async def paths(page: Any) -> set[str]:
    """What the page itself links to, besides the menu."""
    links = "links => links.map(link => new URL(link.href).pathname)"
    return {*await page.eval_on_selector_all("main a", links)}


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 360])
async def test_a_person_makes_a_role_and_gives_it(fresh_server: str, page: Any, width: int) -> None:
    problems = await watched(page)
    await page.set_viewport_size({"width": width, "height": 900})
    await sign_in(page, fresh_server, ADMIN)

    await page.goto(f"{fresh_server}/admin/role/create")
    await page.get_by_label("Name").fill("Support desk")
    await page.get_by_label("users:read").check()
    assert not await page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    await save(page)
    await page.get_by_role("link", name="Support desk", exact=True).click()
    await page.get_by_role("link", name="Who holds this role").click()
    await page.goto(f"{fresh_server}/admin/user-role/create")
    await page.get_by_label("Role").select_option("Support desk")
    await page.get_by_label("Person").press_sequentially("adm")
    suggested = page.locator("#user_id-suggestions option")
    await suggested.wait_for(state="attached")
    await page.get_by_label("Person").fill(await suggested.get_attribute("value"))
    await save(page)
    await page.get_by_role("link", name=ADMIN, exact=True).wait_for()
    assert not await page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    assert problems == []


@pytest.mark.browser
@pytest.mark.skipif("items" not in FEATURES, reason="the role is about items")
async def test_a_role_with_only_items_view_sees_exactly_that(fresh_server: str, page: Any) -> None:
    problems = await watched(page)
    httpx2.post(f"{fresh_server}/api/v1/auth/signup", json={"email": ADA, "password": PASSWORD}).raise_for_status()
    await sign_in(page, fresh_server, ADMIN)
    await page.goto(f"{fresh_server}/admin/item/create")
    await page.get_by_label("Name").fill("Teapot")
    await page.get_by_label("Price").fill("19.90")
    await save(page)
    await page.get_by_role("link", name="Edit Teapot").wait_for()
    assert {*await opened(page, fresh_server)} == {200}

    await page.goto(f"{fresh_server}/admin/role/create")
    await page.get_by_label("Name").fill("Viewers")
    await page.get_by_label("console:enter").check()
    await page.get_by_role("row", name="Items").get_by_label("See items whole").check()
    await save(page)
    await page.get_by_role("link", name="Viewers", exact=True).wait_for()
    await page.goto(f"{fresh_server}/admin/user-role/create")
    await page.get_by_label("Role").select_option("Viewers")
    await page.get_by_label("Person").fill(ADA)
    await save(page)
    await page.get_by_role("link", name=ADA, exact=True).wait_for()
    await page.locator("#menu").get_by_role("button", name="Sign out").click()
    await page.get_by_role("heading", name="Sign in to").wait_for()

    await sign_in(page, fresh_server, ADA)
    menu = await page.get_by_role("navigation", name="Console").get_by_role("link").all_inner_texts()
    assert {one.strip() for one in menu} == {"Items", *OWN_PAGES}
    assert await axe(page) == []
    await page.get_by_role("navigation", name="Console").get_by_role("link", name="Items").click()
    await page.get_by_role("heading", name="Items", exact=True).wait_for()
    assert await buttons(page) == ["Search", "Filters", "Apply"]
    assert await paths(page) == {"/admin/item/list", "/admin/item/details/1"}
    assert await axe(page) == []
    await page.get_by_role("link", name="Teapot", exact=True).click()
    await page.get_by_role("heading", name="Teapot").wait_for()
    await page.locator("dd").get_by_text("19.90", exact=True).wait_for()
    assert await buttons(page) == []
    assert await paths(page) <= {"/admin/item/list", "/admin/item/history/1"}
    assert problems == []

    assert {*await opened(page, fresh_server)} == {403}
    assert [one for one in problems if "403" not in one] == []  # Chromium tells of every such answer
