"""The link's page in a real browser, under the real Content-Security-Policy, with no JavaScript."""

import re
from typing import Any

import httpx2
import pytest

from backend.testing import ON_VIOLATION, PASSWORD, SmtpServer, running_server, smtp_server, text_of

ADA, NEW = "ada@example.com", "Nautilus-1954-x"


async def mailed_link(server: SmtpServer, url: str) -> str:
    """Of a new account that asks for a new password."""
    account = {"email": ADA, "password": PASSWORD}
    assert httpx2.post(f"{url}/api/v1/auth/signup", json=account, timeout=30).status_code == 201
    answer = httpx2.post(f"{url}/api/v1/auth/password-reset/request", json={"email": ADA}, timeout=30)
    assert answer.status_code == 202
    mail = await server.next_mail("Choose a new password")
    [link] = re.findall(r"^http\S+$", text_of(mail), re.MULTILINE)
    return str(link)


@pytest.mark.browser
async def test_a_person_opens_the_link_and_chooses_a_password(page: Any) -> None:
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    await page.add_init_script(ON_VIOLATION)
    await page.set_viewport_size({"width": 360, "height": 740})
    with smtp_server() as server, running_server(DATABASE_URL="sqlite://", **server.variables) as url:
        await page.goto(await mailed_link(server, url))
        assert await page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        await page.get_by_label("New password").fill(NEW)
        await page.get_by_label("The same again").fill("something else")
        assert problems == []
        await page.get_by_role("button", name="Set the password").click()
        await page.get_by_text("The two passwords differ").wait_for()
        problems.clear()  # the browser reports the 422
        await page.get_by_label("New password").fill(NEW)
        await page.get_by_label("The same again").fill(NEW)
        await page.get_by_role("button", name="Set the password").click()
        await page.get_by_role("heading", name="You have a new password").wait_for()
        assert "token" not in page.url
        assert problems == []
        form = {"username": ADA, "password": NEW}
        assert httpx2.post(f"{url}/api/v1/auth/token", data=form, timeout=30).status_code == 200
