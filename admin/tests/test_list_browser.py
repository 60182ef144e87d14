"""Lists of the console in a real browser, under the real Content-Security-Policy, on a desk and on a phone."""

from typing import Any

import pytest

from admin.tests.test_browser import SIZES, is_wider_than_the_window, sign_in
from backend.testing import ON_VIOLATION


@pytest.mark.browser
@pytest.mark.parametrize("size", SIZES)
async def test_a_person_filters_a_list_and_clears_the_filters(live_server: str, page: Any, size: str) -> None:
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.add_init_script(ON_VIOLATION)
    await page.set_viewport_size(SIZES[size])
    await page.goto(f"{live_server}/admin/")
    await sign_in(page)

    await page.goto(f"{live_server}/admin/user/list?search=example.com")
    await page.locator("summary", has_text="Filters").click()
    await page.get_by_label("Active").select_option("no")
    await page.get_by_label("Created from").fill("2020-01-31")
    assert not await is_wider_than_the_window(page)
    await page.get_by_role("button", name="Apply").click()
    await page.get_by_text("Nothing matches these filters and “example.com”.").wait_for()
    assert not await is_wider_than_the_window(page)
    await page.get_by_role("list", name="Active filters").get_by_role("link", name="Active: No").click()
    await page.get_by_role("link", name="admin@example.com", exact=True).wait_for()
    assert await page.get_by_label("Created from").input_value() == "2020-01-31"
    await page.get_by_role("link", name="Created: from 2020-01-31").click()
    await page.get_by_role("list", name="Active filters").wait_for(state="detached")
    assert "search=example.com" in page.url
    assert problems == []
