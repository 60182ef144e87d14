"""The list of items in a real browser: prices are edited in it, on a desk and on a phone."""

from typing import Any

import pytest

from backend.testing import PASSWORD, axe

WIDTHS = {"desk": 1280, "phone": 360}


@pytest.mark.browser
@pytest.mark.parametrize("size", WIDTHS)
async def test_a_price_is_changed_in_the_list(live_server: str, page: Any, size: str) -> None:
    await page.set_viewport_size({"width": WIDTHS[size], "height": 800})
    await page.goto(f"{live_server}/admin/")
    await page.get_by_label("E-mail address").fill("admin@example.com")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("heading", name="Console").wait_for()
    await page.goto(f"{live_server}/admin/item/create")
    await page.get_by_label("Name").fill(f"Vase for the {size}")
    await page.get_by_label("Price").fill("19.90")
    await page.get_by_role("button", name="Save", exact=True).click()
    await page.get_by_role("heading", name="Items").wait_for()

    await page.goto(f"{live_server}/admin/item/list?search=vase+for+the+{size}&f_price_from=1")
    assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    await page.get_by_label(f"Price of Vase for the {size}").fill("5")
    await page.get_by_role("button", name="Save changes in the list").click()
    await page.get_by_text("1 item saved.").wait_for()
    assert await page.get_by_label(f"Price of Vase for the {size}").input_value() == "5.00"
    assert await axe(page) == []

    await page.get_by_label(f"Select Vase for the {size}").check()
    delete = page.get_by_role("button", name="Delete", exact=True)
    await delete.click()
    await page.get_by_role("heading", name=f"Delete “Vase for the {size}”?").wait_for()
    assert await axe(page) == []
    await delete.click()
    await page.get_by_text("1 item deleted.").wait_for()
    assert "f_price_from=1" in page.url
    await page.get_by_role("link", name="Deleted", exact=True).click()
    await page.get_by_role("link", name=f"Vase for the {size}", exact=True).wait_for()
    assert await axe(page) == []
