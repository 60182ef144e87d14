"""An item that two tabs edit at once, and many items at once: in a real browser, on a desk and on a phone."""

from typing import Any

import httpx2
import pytest

from backend.features import FEATURES
from backend.testing import ON_VIOLATION, PASSWORD, axe

ADMIN, API = "admin@example.com", "/api/v1"
WIDTHS = {"desk": 1280, "phone": 360}
MADE, ON_A_PAGE = 40, 25
LOWEST = {"desk": 9000, "phone": 8000}  # prices that no other item of this server has


async def signed_in(page: Any, server: str, size: str) -> list[str]:
    """What this tab, and those that it opens, complain about from now on."""
    problems: list[str] = []
    page.context.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.context.on("weberror", lambda error: problems.append(str(error.error)))
    await page.context.add_init_script(ON_VIOLATION)
    await page.set_viewport_size({"width": WIDTHS[size], "height": 800})
    await page.goto(f"{server}/admin/login")
    await page.get_by_label("E-mail address").fill(ADMIN)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("heading", name="Console").wait_for()
    return problems


async def store(server: str, *items: dict[str, Any]) -> list[int]:
    """Their keys."""
    async with httpx2.AsyncClient(base_url=server) as client:
        answer = await client.post(f"{API}/auth/token", data={"username": ADMIN, "password": PASSWORD})
        client.headers["Authorization"] = f"Bearer {answer.raise_for_status().json()['access_token']}"
        made = await client.post("/api/v2/store/items/bulk", json={"items": items})
        return list(made.raise_for_status().json()["ids"])


async def looks_right(page: Any) -> None:
    assert await axe(page) == []
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


async def rows(part: Any) -> list[list[str]]:
    """What the tables in there say; on a phone, too, where each cell has its label before it."""
    texts = "rows => rows.map(row => [...row.cells].map(cell => cell.innerText.trim()))"
    return list(await part.locator("tbody tr").evaluate_all(texts))


async def restore_the_first_price(page: Any) -> None:
    """On the page of an item whose price was 10, then 11, then 12."""
    await page.get_by_role("link", name="History").click()
    changes = page.locator("section.change", has=page.get_by_role("heading", name=f"Changed by {ADMIN}"))
    await changes.first.wait_for()
    assert ["Price", "11.00", "12.00"] in await rows(changes.nth(0))
    assert ["Price", "10.00", "11.00"] in await rows(changes.nth(1))
    await looks_right(page)
    await changes.nth(1).get_by_role("link", name="Restore as before this").click()
    await page.get_by_role("heading", name="as it was before that change?").wait_for()
    assert ["Price", "12.00", "10.00"] in await rows(page.get_by_role("main"))
    await looks_right(page)
    await page.get_by_role("button", name="Restore", exact=True).click()
    await page.get_by_text("Item is as it was before that change.").wait_for()
    await page.locator("dd").get_by_text("10.00", exact=True).wait_for()


@pytest.mark.browser
@pytest.mark.parametrize("size", WIDTHS)
async def test_who_saves_second_is_told_loses_nothing_and_can_restore(live_server: str, page: Any, size: str) -> None:
    problems = await signed_in(page, live_server, size)
    [key] = await store(live_server, {"name": f"Vase of two, {size}", "price": "10"})
    await page.goto(f"{live_server}/admin/item/edit/{key}")
    async with page.expect_popup() as opened:
        await page.evaluate("open(location.href)")
    second = await opened.value
    await second.set_viewport_size(page.viewport_size)
    await second.get_by_label("Description").fill("Has a crack")
    await second.get_by_label("Price").fill("12")

    await page.get_by_label("Price").fill("11")
    await page.get_by_role("button", name="Save", exact=True).click()
    await page.get_by_role("heading", name="Items", exact=True).wait_for()
    assert problems == []

    await second.get_by_role("button", name="Save", exact=True).click()
    by = f" by {ADMIN}" if "audit" in FEATURES else ""
    await second.get_by_role("heading", name=f"Changed{by} a moment ago").wait_for()
    assert sorted(await rows(second)) == [["Description", "empty", "Has a crack"], ["Price", "11.00", "12"]]
    await looks_right(second)
    assert [one for one in problems if "409" not in one] == []  # Chromium tells of every such answer
    problems.clear()
    await page.goto(f"{live_server}/admin/item/details/{key}")
    assert await page.locator("dd").get_by_text("11.00", exact=True).count() == 1, "nothing is stored before it is seen"
    assert await second.get_by_label("Price").input_value() == "12"
    assert await second.get_by_label("Description").input_value() == "Has a crack"

    await second.get_by_role("button", name="Save mine over it").click()
    await second.get_by_role("heading", name="Items", exact=True).wait_for()
    await page.reload()
    await page.locator("dd").get_by_text("12.00", exact=True).wait_for()
    await page.locator("dd").get_by_text("Has a crack").wait_for()
    if "audit" in FEATURES:
        await restore_the_first_price(page)
    assert problems == []


@pytest.mark.browser
@pytest.mark.parametrize("size", WIDTHS)
async def test_all_that_match_a_filter_are_deleted_and_no_others(live_server: str, page: Any, size: str) -> None:
    problems = await signed_in(page, live_server, size)
    lowest, name = LOWEST[size], f"Pot for the {size}"
    await store(live_server, *({"name": f"{name} {one}", "price": str(lowest + one)} for one in range(MADE)))

    await page.goto(f"{live_server}/admin/item/list")
    await page.locator("summary", has_text="Filters").click()
    await page.get_by_label("Price from").fill(str(lowest + 5))
    await page.get_by_label("Price to").fill(str(lowest + 34))
    await page.get_by_role("button", name="Apply").click()
    await page.get_by_role("list", name="Active filters").wait_for()
    boxes, everything = page.locator("[data-select]"), page.get_by_label("all 30 that match")
    assert await boxes.count() == ON_A_PAGE
    await looks_right(page)

    await everything.check()
    await page.get_by_text("All selected:").wait_for()
    await boxes.first.uncheck()
    await page.get_by_text(f"{ON_A_PAGE - 1} selected:").wait_for()
    assert not await everything.is_checked(), "who takes one out does not mean all"
    await everything.check()
    await page.get_by_role("button", name=f"Delete {name} 34", exact=True).click()
    await page.get_by_role("heading", name=f"Delete “{name} 34”?").wait_for()
    await page.get_by_role("link", name="Cancel").click()

    await everything.check()
    delete = page.get_by_role("button", name="Delete", exact=True)
    await delete.click()
    await page.get_by_role("heading", name="Delete 30 items?").wait_for()
    await page.get_by_text("and 10 more").wait_for()
    await looks_right(page)
    await delete.click()
    await page.get_by_text("30 items deleted.").wait_for()
    await page.get_by_text("Nothing matches these filters").wait_for()

    await page.goto(f"{live_server}/admin/item/list?search={name}")
    left = [await box.get_attribute("aria-label") for box in await boxes.all()]
    assert sorted(left) == sorted(f"Select {name} {one}" for one in (*range(5), *range(35, MADE)))
    assert problems == []
