"""The console in a real browser, under the real Content-Security-Policy, on a desk and on a phone."""

from typing import Any

import pytest

from backend.testing import ON_VIOLATION, PASSWORD, axe

SIZES = {"desk": {"width": 1280, "height": 900}, "phone": {"width": 360, "height": 740}}


async def sign_in(page: Any) -> None:
    """On the sign-in page."""
    await page.get_by_label("E-mail address").fill("admin@example.com")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Console").wait_for()


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

    await page.get_by_label("Search in").fill(size)
    await page.get_by_role("button", name="Search", exact=True).click()
    await page.get_by_role("link", name=f"Edit {address}").click()
    await page.get_by_label("Name").fill(renamed)
    await page.get_by_role("button", name="Save", exact=True).click()
    await page.get_by_text(renamed).wait_for()
    assert not await is_wider_than_the_window(page)

    await page.get_by_role("link", name=address, exact=True).click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.get_by_role("heading", name="Delete “").wait_for()
    assert not await is_wider_than_the_window(page)
    await page.get_by_role("link", name="Cancel").click()
    await page.get_by_role("button", name=f"Delete {address}").click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.get_by_text("1 user deleted.").wait_for()
    assert await page.get_by_text(address).count() == 0

    if size == "phone":
        await page.get_by_role("button", name="Menu").click()
    await page.locator("#menu").get_by_role("button", name="Sign out").click()
    await page.get_by_role("heading", name="Sign in to").wait_for()
    await page.goto(f"{live_server}/admin/user/list")
    await page.get_by_role("heading", name="Sign in to").wait_for()
    assert problems == []


@pytest.mark.browser
async def test_selected_records_are_deleted_together_or_not_at_all(live_server: str, page: Any) -> None:
    await page.goto(f"{live_server}/admin/login")
    await sign_in(page)
    for name in ("one", "two"):
        await page.goto(f"{live_server}/admin/user/create")
        await page.get_by_label("E-mail").fill(f"{name}@example.org")
        await page.get_by_label("Password").fill("Nautilus-1954-x")
        await page.keyboard.press("Enter")
        await page.get_by_role("link", name=f"{name}@example.org", exact=True).wait_for()

    delete = page.get_by_role("button", name="Delete", exact=True)
    assert not await delete.is_enabled()
    await page.get_by_label("Select all on this page").check()
    await delete.click()
    await page.get_by_role("heading", name="Delete 3 users?").wait_for()
    await delete.click()
    await page.get_by_text("This is the last active administrator").wait_for()
    await page.get_by_role("link", name="Cancel").click()
    for name in ("one", "two"):
        await page.get_by_label(f"Select {name}@example.org").check()
    await page.get_by_text("2 selected").wait_for()
    await delete.click()
    await delete.click()
    await page.get_by_text("2 users deleted.").wait_for()
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


ADDRESSES = (
    "",
    "account",
    "second-factor",
    "log-level",
    "search?search=example",
    "user/list",
    "user/list?search=nobody",
    "user/create",
    "user/details/1",
    "user/edit/1",
    "role/create",
    "audit-entry/list",
    "nonsense",
)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
async def test_everybody_can_use_every_kind_of_page(live_server: str, page: Any, size: str, scheme: str) -> None:
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if "CSP" in message.text else None)
    await page.add_init_script(ON_VIOLATION)
    await page.emulate_media(color_scheme=scheme)
    await page.set_viewport_size(SIZES[size])
    await page.goto(f"{live_server}/admin/login")
    problems += await axe(page)
    await sign_in(page)
    for address in ADDRESSES:
        await page.goto(f"{live_server}/admin/{address}")
        problems += [f"{address}: {one}" for one in await axe(page)]
        assert not await is_wider_than_the_window(page), address
    await page.goto(f"{live_server}/admin/user/list")
    await page.get_by_label("Select admin@example.com").check()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await page.get_by_role("heading", name="Delete “").wait_for()
    problems += await axe(page)
    assert problems == []
