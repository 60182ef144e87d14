"""The public pages: what they show, what they keep to themselves, and how they behave when something is down."""

import re
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from backend import __version__
from backend.core.feature import Registry
from backend.testing import BASE_URL, new_client

UNREACHABLE = "postgresql://nobody@127.0.0.1:9/none"
PAGES = ("/", "/status")

MakeApp = Callable[..., FastAPI]


def links(html: str) -> set[str]:
    return set(re.findall(r'(?:href|src)="([^"#]+)"', html))


async def get(app: FastAPI, path: str) -> httpx2.Response:
    async with new_client(app) as client:
        return await client.get(path)


@pytest.mark.parametrize("path", PAGES)
async def test_pages_are_whole_documents(client: httpx2.AsyncClient, path: str) -> None:
    page = await client.get(path)
    assert page.status_code == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    for part in ('<html lang="en">', "<title>", "<main", "<h1>", 'class="skip"', 'name="viewport"', "</html>"):
        assert part in page.text
    assert page.text.count("<h1>") == 1
    assert (await client.head(path)).status_code == 200


@pytest.mark.parametrize("path", PAGES)
async def test_pages_obey_the_strict_content_security_policy(client: httpx2.AsyncClient, path: str) -> None:
    page = await client.get(path)
    assert not re.search(r"<script(?! src=)|<style|\sstyle=|\son\w+=|javascript:|https?://", page.text)


async def test_every_link_leads_somewhere(client: httpx2.AsyncClient) -> None:
    for link in {link for path in PAGES for link in links((await client.get(path)).text)}:
        answer = await client.get(link, follow_redirects=True)
        assert answer.status_code == 200, link


def expected_links(registry: Registry) -> set[str]:
    """What home leads to, by what there is."""
    found = {"/", "/status", "/openapi.json", "/static/style.css", "/static/logo.svg"}
    if "docs" in registry.names:
        found |= {"/docs", "/redoc"}
    if "health" in registry.names:
        found |= {"/live", "/ready", "/health"}
    if registry.console_sign_in:
        found |= {"/admin"}
    return found


async def test_home_shows_what_is_on_and_no_more(make_app: MakeApp) -> None:
    app = make_app()
    everything: Registry = app.state.registry
    for off in (set(), {"docs"}, {"health"}, {one.name for one in everything.features if one.console_sign_in}):
        app.state.registry = Registry(features=tuple(one for one in everything.features if one.name not in off))
        page = (await get(app, "/")).text
        assert links(page) == expected_links(app.state.registry)
        shown = page[page.index('id="features"') :]
        assert tuple(re.findall("<code>(.+?)</code>", shown)) == app.state.registry.names
        assert f"{len(app.state.registry.names)} features" in shown


async def test_status_names_each_component(client: httpx2.AsyncClient) -> None:
    page = await client.get("/status")
    assert "Everything works" in page.text
    assert [row.strip() for row in re.findall(r'<th scope="row">(.+?)</th>', page.text)] == ["Database", "Redis"]
    assert page.text.count(">Up<") == 2
    assert re.search(r'<time datetime="[\d-]+T[\d:]+\+00:00">[\d-]+ [\d:]+ UTC</time>', page.text)
    assert '<noscript><meta http-equiv="refresh" content="30"></noscript>' in page.text
    assert page.headers["Cache-Control"] == "no-store"


async def test_without_a_database_the_status_is_503_and_home_still_answers(make_app: MakeApp) -> None:
    app = make_app(DATABASE_URL=UNREACHABLE)
    page = await get(app, "/status")
    assert page.status_code == 503
    assert page.headers["Retry-After"] == "1"
    assert 'http-equiv="refresh"' in page.text
    assert "Not working" in page.text
    assert ">Down<" in page.text
    assert (await get(app, "/")).status_code == 200


async def test_without_redis_the_status_is_degraded(make_app: MakeApp) -> None:
    page = await get(make_app(REDIS_URL="redis://127.0.0.1:9"), "/status")
    assert page.status_code == 200
    assert "Works, with limits" in page.text
    assert (page.text.count(">Up<"), page.text.count(">Down<")) == (1, 1)


async def test_strangers_learn_no_versions_hosts_or_errors(make_app: MakeApp) -> None:
    app = make_app(DATABASE_URL=UNREACHABLE, REDIS_URL="redis://127.0.0.1:9")
    report: Any = await app.state.health.report()
    errors = [component.error for component in report.components]
    assert all(errors)
    for path in PAGES:
        page = await get(app, path)
        for secret in (__version__, "127.0.0.1", "localhost", "postgresql", "sqlite", "nobody", *errors):
            assert secret not in page.text
        assert "Error" not in page.text


async def test_a_title_is_escaped_and_each_app_has_its_own(make_app: MakeApp) -> None:
    first, second = make_app(API__TITLE="<b>Tom & Jerry</b>"), make_app(API__TITLE="The other one")
    page = await get(first, "/")
    assert "&lt;b&gt;Tom &amp; Jerry&lt;/b&gt;" in page.text
    assert "The other one" not in page.text
    assert "The other one" in (await get(second, "/")).text


async def test_links_stay_below_a_root_path(app: FastAPI) -> None:
    transport = httpx2.ASGITransport(app=app, root_path="/shop")
    async with httpx2.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        page = await client.get("/shop/status")
        assert 'href="/shop/status" aria-current="page"' in page.text
        for link in links(page.text):
            assert link.startswith("/shop/")
            assert (await client.get(link, follow_redirects=True)).status_code == 200


async def test_static_files_may_be_cached(client: httpx2.AsyncClient) -> None:
    style = await client.get("/static/style.css")
    assert style.headers["Content-Type"].startswith("text/css")
    assert style.headers["Cache-Control"] == "public, max-age=3600"
    again = await client.get("/static/style.css", headers={"If-None-Match": style.headers["ETag"]})
    assert again.status_code == 304


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_pages_fit_a_small_phone_and_raise_nothing(live_server: str, page: Any, scheme: str) -> None:
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    await page.emulate_media(color_scheme=scheme)
    await page.set_viewport_size({"width": 360, "height": 740})
    backgrounds = set()
    for path in PAGES:
        await page.goto(live_server + path)
        assert await page.evaluate("document.documentElement.scrollWidth") == 360
        backgrounds.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert backgrounds == {{"light": "rgb(247, 249, 249)", "dark": "rgb(15, 23, 25)"}[scheme]}
    assert complaints == []


@pytest.mark.browser
async def test_the_first_tab_stop_skips_to_the_content(live_server: str, page: Any) -> None:
    await page.goto(live_server)
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "skip"
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"
