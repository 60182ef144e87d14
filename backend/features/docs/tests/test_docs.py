"""The documentation pages work from our own files, under a strict Content-Security-Policy."""

import re
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from backend.features.docs.routes import STATIC
from backend.testing import BASE_URL, PASSWORD, new_client

PAGES = ("/docs", "/redoc")

# Notes every breach of the policy that the browser sees, from before the page's own scripts.
WATCH = """
window.breaches = [];
document.addEventListener("securitypolicyviolation", (event) => {
  breaches.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`);
});
"""


def references(html: str) -> set[str]:
    return set(re.findall(r'(?:href|src|data-[a-z]+)="([^"]+)"', html))


@pytest.mark.parametrize("path", PAGES)
async def test_the_page_and_all_it_refers_to_are_ours(client: httpx2.AsyncClient, path: str) -> None:
    page = await client.get(path)
    assert page.status_code == 200
    assert page.headers["Cache-Control"] == "no-cache"
    assert (await client.head(path)).status_code == 200
    found = references(page.text)
    assert len(found) > 4
    for reference in found:
        assert reference.startswith("/")
        answer = await client.get(reference)
        assert answer.status_code == 200, reference
        if "static" in reference:
            assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"


@pytest.mark.parametrize("path", PAGES)
async def test_no_script_is_inline_and_no_address_is_foreign(client: httpx2.AsyncClient, path: str) -> None:
    html = (await client.get(path)).text
    assert all(script == "" for script in re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL))
    assert not re.search(r"https?://|\sstyle=|<style|\son\w+=", html)


async def test_redoc_has_a_new_nonce_each_time_and_a_policy_without_exceptions(client: httpx2.AsyncClient) -> None:
    nonces = set()
    for _ in range(2):
        page = await client.get("/redoc")
        nonce = re.search(r'nonce="([\w-]{20,})"', page.text)
        assert nonce
        policy = page.headers["Content-Security-Policy"]
        assert f"style-src 'self' 'nonce-{nonce[1]}'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        nonces.add(nonce[1])
    assert len(nonces) == 2


async def test_vendored_files_come_with_their_licences(client: httpx2.AsyncClient) -> None:
    for folder in ("swagger-ui", "redoc"):
        assert "License" in (STATIC / folder / "LICENSE").read_text()
        assert (await client.get(f"/docs/static/{folder}/LICENSE")).status_code == 200


async def test_switched_off_the_pages_are_gone_and_the_document_stays(make_app: Callable[..., FastAPI]) -> None:
    async with new_client(make_app(FEATURES_OFF="docs")) as client:
        for path in (*PAGES, "/docs/static/swagger.js"):
            assert (await client.get(path)).status_code == 404
        assert (await client.get("/openapi.json")).status_code == 200


async def test_addresses_stay_below_a_root_path(app: FastAPI) -> None:
    transport = httpx2.ASGITransport(app=app, root_path="/shop")
    async with httpx2.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        for path in PAGES:
            for reference in references((await client.get(f"/shop{path}")).text):
                assert reference.startswith("/shop/")
                assert (await client.get(reference)).status_code == 200


@pytest.fixture
async def watched(page: Any, live_server: str) -> AsyncIterator[Any]:
    """A page that may not complain: no errors, no breaches of its policy, no requests to other servers."""
    complaints: list[str] = []

    def note(what: str, is_complaint: bool = True) -> None:
        if is_complaint:
            complaints.append(what)

    page.on("console", lambda message: note(message.text, message.type == "error"))
    page.on("pageerror", lambda error: note(str(error)))
    page.on("request", lambda request: note(request.url, not request.url.startswith((live_server, "data:"))))
    await page.add_init_script(WATCH)
    yield page
    complaints += await page.evaluate("breaches")
    assert complaints == []


@pytest.fixture
def operations(make_app: Callable[..., FastAPI]) -> int:
    """How many operations there are to be seen."""
    return sum(len(path) for path in make_app().openapi()["paths"].values())


@pytest.mark.browser
async def test_swagger_ui_shows_every_operation(live_server: str, watched: Any, operations: int) -> None:
    await watched.goto(f"{live_server}/docs")
    await watched.wait_for_selector(".opblock")
    seen: set[str] = set()
    for _ in range(2 * operations):  # it draws only those in sight
        seen.update(await watched.locator(".opblock[id]").evaluate_all("found => found.map(one => one.id)"))
        if len(seen) == operations:
            break
        await watched.mouse.wheel(0, 400)
        await watched.evaluate("new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    assert len(seen) == operations


@pytest.mark.browser
async def test_swagger_ui_signs_in_and_forgets_when_left(live_server: str, watched: Any) -> None:
    await watched.goto(f"{live_server}/docs")
    await watched.click(".auth-wrapper .authorize")
    await watched.fill("#oauth_username", "admin@example.com")
    await watched.fill("#oauth_password", PASSWORD)
    await watched.click(".auth-btn-wrapper .authorize")
    await watched.get_by_text("Authorized", exact=True).wait_for()
    await watched.click(".auth-btn-wrapper .btn-done")
    await watched.get_by_placeholder("Filter by tag or path").fill("/auth/me")
    operation = watched.locator("[id$=-v1_read_me]")
    await operation.locator(".opblock-summary-control").click()
    await operation.get_by_role("button", name="Try it out").click()
    await operation.get_by_role("button", name="Execute").click()
    await operation.locator(".live-responses-table").get_by_text("admin@example.com").wait_for()
    kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    assert "ey" not in await watched.evaluate(kept)  # what every token starts with
    await watched.goto(f"{live_server}/docs?again")
    await watched.wait_for_selector(".auth-wrapper .authorize.unlocked")


@pytest.mark.browser
async def test_swagger_ui_follows_the_colour_scheme(live_server: str, watched: Any) -> None:
    await watched.goto(f"{live_server}/docs")
    for scheme, root in (("dark", "html.dark-mode"), ("light", "html:not(.dark-mode)")):
        await watched.emulate_media(color_scheme=scheme)
        await watched.wait_for_selector(root)


@pytest.mark.browser
async def test_redoc_shows_the_operations_and_finds_them(live_server: str, watched: Any) -> None:
    await watched.goto(f"{live_server}/redoc")
    await watched.get_by_text("/api/v1/auth/token").first.wait_for()
    rules = "[...document.styleSheets].filter((one) => one.ownerNode.nonce).map((one) => one.cssRules.length)"
    assert sum(await watched.evaluate(rules)) > 100  # its styles were let in
    await watched.keyboard.press("Control+k")
    await watched.get_by_placeholder("Search docs...").fill("token")
    await watched.get_by_text("response 200 fields").first.wait_for()
