"""The second factor in a real browser, against a real server, under the real Content-Security-Policy."""

from typing import Any

import httpx2
import pytest

from backend.features.two_factor.tests.enrolment import Phone
from backend.testing import ON_VIOLATION, PASSWORD

ADMIN, ADA = "admin@example.com", "ada@example.org"
API = "/api/v1"


async def watched(page: Any) -> list[str]:
    """What the page complains about: scripts that fail, what the Content-Security-Policy stops."""
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.add_init_script(ON_VIOLATION)
    return problems


async def give_password(page: Any, server: str, email: str) -> None:
    await page.goto(f"{server}/admin/login")
    await page.get_by_label("E-mail address").fill(email)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()


async def token(client: httpx2.AsyncClient, email: str, **fields: str) -> httpx2.Response:
    return await client.post(f"{API}/auth/token", data={"username": email, "password": PASSWORD, **fields})


async def use(client: httpx2.AsyncClient, answer: httpx2.Response) -> None:
    assert answer.status_code == 200, answer.text
    client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 360])
async def test_a_person_sets_it_up_in_the_console_and_signs_in_with_it(
    fresh_server: str, page: Any, width: int
) -> None:
    problems = await watched(page)
    await page.set_viewport_size({"width": width, "height": 900})
    await give_password(page, fresh_server, ADMIN)
    await page.get_by_role("main").get_by_role("link", name="Second factor").click()
    await page.get_by_label("Your password").fill(PASSWORD)
    await page.get_by_role("button", name="Set up a second factor").click()

    assert (await page.locator("svg.segno").bounding_box())["width"] > 150
    assert not await page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
    phone = Phone(await page.locator("code").inner_text())
    await page.get_by_label("Code that the app shows").fill(phone.now)
    await page.get_by_role("button", name="Switch on").click()
    recovery = await page.get_by_role("region", name="Your recovery codes").get_by_role("listitem").all_inner_texts()
    assert len(recovery) == 10

    if width < 768:
        await page.get_by_role("button", name="Menu").click()
    await page.get_by_role("button", name="Sign out").click()
    await page.get_by_role("heading", name="Sign in to").wait_for()
    assert problems == []

    for code in (phone.soon, recovery[0]):
        await page.context.clear_cookies()
        await give_password(page, fresh_server, ADMIN)
        await page.get_by_label("Code of your authenticator app, or a recovery code").fill(code)
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("heading", name="Console").wait_for()
