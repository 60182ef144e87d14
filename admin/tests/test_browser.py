"""The console in a real browser, under the real Content-Security-Policy, on a desk and on a phone."""

from typing import Any

import pytest

from backend.testing import PASSWORD

ON_VIOLATION = "document.addEventListener('securitypolicyviolation', e => console.error('CSP ' + e.violatedDirective))"
SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}


async def is_wider_than_the_window(page: Any) -> bool:
    return bool(await page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))


@pytest.mark.browser
@pytest.mark.parametrize("size", SIZES)
async def test_a_person_signs_in_and_creates_edits_and_deletes(live_server: str, page: Any, size: str) -> None:
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.add_init_script(ON_VIOLATION)
    await page.set_viewport_size(SIZES[size])
    address, renamed = f"{size}@example.org", f"{size} renamed"

    await page.goto(f"{live_server}/admin/user/list")
    await page.get_by_label("E-mail address").fill("admin@example.com")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_role("heading", name="Console").wait_for()
    assert not await is_wider_than_the_window(page)

    await page.get_by_role("link", name="New user").click()
    await page.get_by_label("E-mail").fill(address)
    await page.get_by_label("Password").fill("Nautilus-1954-x")
    assert not await is_wider_than_the_window(page)
    await page.get_by_role("button", name="Save", exact=True).click()

    await page.get_by_label("Search").fill(size)
    await page.get_by_role("button", name="Search").click()
    await page.get_by_role("link", name=f"Edit {address}").click()
    await page.get_by_label("Name").fill(renamed)
    await page.get_by_role("button", name="Save", exact=True).click()
    await page.get_by_text(renamed).wait_for()
    assert not await is_wider_than_the_window(page)

    await page.get_by_role("link", name=address, exact=True).click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    dialog = page.get_by_role("dialog", name=f"Delete user “{address}”?")
    await dialog.get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await dialog.get_by_role("button", name="Delete").click()
    await page.get_by_role("heading", name="Users").wait_for()
    assert await page.get_by_text(address).count() == 0

    if size == "phone":
        await page.get_by_role("button", name="Menu").click()
    await page.get_by_role("button", name="Sign out").click()
    await page.get_by_role("heading", name="Sign in to").wait_for()
    await page.goto(f"{live_server}/admin/user/list")
    await page.get_by_role("heading", name="Sign in to").wait_for()
    assert problems == []


@pytest.mark.browser
async def test_selected_records_are_deleted_together_or_not_at_all(live_server: str, page: Any) -> None:
    await page.goto(f"{live_server}/admin/login")
    await page.get_by_label("E-mail address").fill("admin@example.com")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Console").wait_for()
    for name in ("one", "two"):
        await page.goto(f"{live_server}/admin/user/create")
        await page.get_by_label("E-mail").fill(f"{name}@example.org")
        await page.get_by_label("Password").fill("Nautilus-1954-x")
        await page.keyboard.press("Enter")
        await page.get_by_role("link", name=f"{name}@example.org", exact=True).wait_for()

    bulk = page.get_by_role("button", name="Delete selected")
    assert not await bulk.is_visible()
    await page.get_by_label("Select all on this page").check()
    await bulk.click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await page.get_by_text("This is the last active administrator").wait_for()
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_label("Select admin@example.com").uncheck()
    await bulk.click()
    await page.get_by_role("dialog", name="Delete 2 records?").get_by_role("button", name="Delete").click()
    await page.wait_for_url("**/admin/user/list")
    await page.get_by_text("of 1", exact=False).wait_for()
    assert await page.get_by_label("Select admin@example.com").count() == 1
    assert await page.locator("[data-select]").count() == 1


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_the_theme_is_the_systems(live_server: str, page: Any, scheme: str) -> None:
    await page.emulate_media(color_scheme=scheme)
    await page.goto(f"{live_server}/admin/login")
    background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    channels = [int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(",")]
    assert (sum(channels) > 384) == (scheme == "light")
