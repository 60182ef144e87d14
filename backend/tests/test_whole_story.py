"""A whole life in a real browser, across features that need nothing of each other."""

import re
from typing import Any

import httpx2
import pytest

from backend.testing import PASSWORD, server_with_admin, smtp_server, text_of

ADMIN, ADA = "admin@example.com", "ada@example.org"
API = "/api/v1"
FETCH = """
async ([method, path, body, token]) => {
  const headers = {"Content-Type": body?.grant_type ? "application/x-www-form-urlencoded" : "application/json"};
  if (token) headers.Authorization = `Bearer ${token}`;
  const sent = body && (body.grant_type ? new URLSearchParams(body) : JSON.stringify(body));
  const answer = await fetch(path, {method, headers, body: sent});
  const text = await answer.text();
  return [answer.status, text ? JSON.parse(text) : null];
}
"""


async def ask(
    page: Any, method: str, path: str, body: dict[str, str] | None = None, token: str = ""
) -> tuple[int, Any]:
    """What a script of one of our pages gets from the API."""
    status, answer = await page.evaluate(FETCH, [method, f"{API}{path}", body, token])
    return status, answer


def form(email: str, **more: str) -> dict[str, str]:
    return {"grant_type": "password", "username": email, "password": PASSWORD, **more}


async def enter_console(page: Any, server: str, code: str) -> None:
    await page.goto(f"{server}/admin/login")
    await page.get_by_label("E-mail address").fill(ADA)
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    await page.get_by_label("Code of your authenticator app").fill(code)
    await page.get_by_role("button", name="Sign in").click()


@pytest.mark.browser
async def test_from_sign_up_to_a_session_that_another_client_ends(page: Any) -> None:
    pytest.importorskip("backend.features.email_verification")
    enrolment = pytest.importorskip("backend.features.two_factor.tests.enrolment")
    with (
        smtp_server() as mail,
        server_with_admin(EMAIL_VERIFICATION__REQUIRED="true", **mail.variables) as server,
    ):
        await page.goto(server)
        status, account = await ask(page, "POST", "/auth/signup", {"email": ADA, "password": PASSWORD})
        assert (status, account["email_verified"]) == (201, False)
        refused, problem = await ask(page, "POST", "/auth/token", form(ADA))
        assert (refused, problem["error"]["code"]) == (403, "email_not_verified")

        [link] = re.findall(r"^http\S+$", text_of(await mail.next_mail()), re.MULTILINE)
        await page.goto(link)
        await page.get_by_role("button", name="Verify my address").click()
        await page.get_by_role("heading", name="Your address is verified").wait_for()

        status, tokens = await ask(page, "POST", "/auth/token", form(ADA))
        assert status == 200
        status, begun = await ask(page, "POST", "/auth/totp", {"password": PASSWORD}, tokens["access_token"])
        assert status in (200, 201), begun
        phone = enrolment.Phone(begun["secret"])
        status, _ = await ask(page, "POST", "/auth/totp/confirm", {"code": phone.now}, tokens["access_token"])
        assert status == 200
        status, asked = await ask(page, "POST", "/auth/token", form(ADA))
        assert (status, asked["error"]["code"]) == (401, "second_factor_required")

        async with httpx2.AsyncClient(base_url=server) as admin:
            known = (await admin.post(f"{API}/auth/token", data=form(ADMIN))).json()
            admin.headers["Authorization"] = f"Bearer {known['access_token']}"
            promoted = await admin.patch(f"{API}/users/{account['id']}", json={"role": "staff"})
            assert promoted.status_code == 200

            await enter_console(page, server, phone.soon)
            await page.get_by_role("heading", name="Console").wait_for()
            await page.reload()
            await page.get_by_role("heading", name="Console").wait_for()

            async with httpx2.AsyncClient(base_url=server) as phone_app:  # where she was signed in before
                phone_app.headers["Authorization"] = f"Bearer {tokens['access_token']}"
                sessions = (await phone_app.get(f"{API}/auth/sessions")).json()
                console = next(one for one in sessions if one["kind"] == "console")
                assert "HeadlessChrome" in console["user_agent"]
                assert (await phone_app.delete(f"{API}/auth/sessions/{console['id']}")).status_code == 204
            await page.reload()
            await page.get_by_role("heading", name="Sign in to").wait_for()
            assert page.url == f"{server}/admin/login"
