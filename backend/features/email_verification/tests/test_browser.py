"""The link's page in a real browser, under the real Content-Security-Policy, with no JavaScript."""

import re
from typing import Any

import httpx2
import pytest

from backend.testing import ON_VIOLATION, PASSWORD, running_server, smtp_server, text_of


@pytest.mark.browser
async def test_a_person_opens_the_link_and_presses_the_button(page: Any) -> None:
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    await page.add_init_script(ON_VIOLATION)
    await page.set_viewport_size({"width": 360, "height": 740})
    with smtp_server() as server, running_server(DATABASE_URL="sqlite://", **server.variables) as url:
        body = {"email": "ada@example.com", "password": PASSWORD}
        assert httpx2.post(f"{url}/api/v1/auth/signup", json=body, timeout=30).status_code == 201
        mail = await server.next_mail()
        [link] = re.findall(r"^http\S+$", text_of(mail), re.MULTILINE)
        assert link.startswith(url)

        await page.goto(link)
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        await page.get_by_role("button", name="Verify my address").click()
        await page.get_by_role("heading", name="Your address is verified").wait_for()
        assert "token" not in page.url
        await page.reload()
        await page.get_by_role("heading", name="Your address is verified").wait_for()

        assert problems == []
        await page.goto(link)
        await page.get_by_role("button", name="Verify my address").click()
        await page.get_by_role("alert").wait_for()
