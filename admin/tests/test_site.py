"""The console as a whole: what is open without signing in, what its pages contain, and that apps do not share it."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from starlette.routing import Mount, Route

from admin.tests.test_guard import console_of
from backend.core.db import Database
from backend.testing import PASSWORD, Console, MakeUser, new_client

HERE = Path(__file__).resolve().parent.parent
OPEN = {"/statics", "/login", "/logout"}
PAGES = (
    "",
    "login",
    "user/list",
    "user/create",
    "user/details/{id}",
    "user/edit/{id}",
    "user/list?search=nobody",
    "search",
    "search?search=example",
    "account",
    "none",
)


def views_of(app: FastAPI) -> list[Any]:
    index = next(route for route in console_of(app).routes if isinstance(route, Route) and route.name == "index")
    bound: Any = index.endpoint
    return [view for view in bound.__self__.views if view.is_model]


async def test_only_the_sign_in_page_and_its_files_are_open(client: httpx2.AsyncClient, app: FastAPI) -> None:
    closed = [route for route in console_of(app).router.routes if getattr(route, "path", None) not in OPEN]
    assert len(closed) > 5
    for route in closed:
        assert isinstance(route, Route)
        address = re.sub(r"{\w+(:path)?}", "1", route.path.replace("{identity}", "user"))
        for method in route.methods or ():
            answer = await client.request(method, f"/admin{address}", headers={"Sec-Fetch-Site": "same-origin"})
            assert (answer.status_code, answer.headers["location"]) == (302, "http://localhost/admin/login"), route.path


async def test_the_sign_in_page_finds_its_files(client: httpx2.AsyncClient) -> None:
    page = await client.get("/admin/login")
    files = re.findall(r'(?:src|href)="(http://localhost/admin/statics/[^"]+)"', page.text)
    assert len(files) >= 5
    assert [(await client.get(file)).status_code for file in files] == [200] * len(files)


@pytest.mark.parametrize("page", PAGES)
async def test_pages_keep_the_content_security_policy(console: Console, make_user: MakeUser, page: str) -> None:
    admin = await make_user("admin")
    browser = await console(admin.email)
    text = (await browser.get("/admin/" + page.format(id=admin.id))).text
    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", text) == []
    addresses = re.findall(r'(?:src|href|action)="(?!#)([^"]*)"', text)
    assert addresses
    assert [one for one in addresses if not one.startswith(("http://localhost/", "/"))] == []


@pytest.mark.parametrize("page", PAGES)
async def test_pages_have_a_title_of_their_own_one_heading_and_tied_labels(
    console: Console, make_user: MakeUser, page: str
) -> None:
    admin = await make_user("admin")
    browser = await console(admin.email)
    text = (await browser.get("/admin/" + page.format(id=admin.id))).text
    assert re.search(r"<title>[^<]+ · Mainstay</title>", text)
    assert text.count("<h1") == 1
    for label in re.findall(r'<label[^>]* for="([^"]+)"', text):
        assert f'id="{label}"' in text
    for control in re.findall(r"<(?:input|select|textarea)\b[^>]*>", text):
        if 'type="hidden"' not in control and "aria-label" not in control:
            name = re.search(r'id="([^"]+)"', control)
            assert name, control
            assert f'for="{name[1]}"' in text, control


async def test_pages_are_not_kept_by_caches(console: Console, make_user: MakeUser) -> None:
    browser = await console((await make_user("admin")).email)
    assert (await browser.get("/admin/user/list")).headers["cache-control"] == "no-store"
    assert "cache-control" not in (await browser.get("/admin/statics/console.css")).headers


async def test_the_home_page_leads_to_what_the_person_may_see(console: Console, make_user: MakeUser) -> None:
    staff = await make_user("staff")
    page = (await (await console(staff.email)).get("/admin/")).text
    assert 'href="http://localhost/admin/user/list"' in page
    assert "/admin/user/create" not in page
    assert staff.email in page
    assert 'href="/status"' in page


async def test_behind_a_proxy_prefix_cookie_and_links_have_it(make_app: Callable[..., FastAPI]) -> None:
    app = make_app()
    await app.state.database.start()
    transport = httpx2.ASGITransport(app=app, root_path="/shop")  # as uvicorn calls an app that has a root path
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost/shop") as client:
        sign_up = {"email": "ada@example.com", "password": PASSWORD}
        await client.post("/api/v1/auth/signup", json=sign_up)
        async with app.state.database.engine.begin() as connection:
            await connection.exec_driver_sql("UPDATE users SET role = 'admin'")
        form = {"username": "ada@example.com", "password": PASSWORD}
        answer = await client.post("/admin/login", data=form, headers={"Sec-Fetch-Site": "same-origin"})
        assert answer.headers["location"] == "http://localhost/shop/admin/"
        assert "Path=/shop;" in answer.headers["set-cookie"]
        cookie = {"Cookie": answer.headers["set-cookie"].split(";")[0]}
        assert 'href="/shop/status"' in (await client.get("/admin/", headers=cookie)).text
    await app.state.database.close()


async def test_two_apps_in_one_process_do_not_share_a_console(make_app: Callable[..., FastAPI]) -> None:
    apps = [make_app(API__TITLE=title) for title in ("First", "Second")]
    titles = []
    for app in apps:
        async with new_client(app) as client:
            titles.append(re.findall(r"Sign in to (\w+)", (await client.get("/admin/login")).text))
    assert titles == [["First"], ["Second"]]
    databases: list[Database] = [app.state.database for app in apps]
    views = [views_of(app) for app in apps]
    for pair in zip(*views, strict=True):
        assert [view.session_maker for view in pair] == [database.console_sessions for database in databases]


async def test_without_a_feature_that_signs_in_there_is_no_console(make_app: Callable[..., FastAPI]) -> None:
    app = make_app()
    features = [one.name for one in app.state.registry.features]
    off = features[features.index("users") :]
    bare = make_app(FEATURES_OFF=",".join(off))
    assert not any(isinstance(route, Mount) and route.name == "admin" for route in bare.routes)


def test_our_templates_and_scripts_load_nothing_from_elsewhere() -> None:
    for path in (*HERE.glob("templates/**/*.html"), *HERE.glob("static/*")):
        assert re.findall(r"https?://(?!www\.w3\.org/2000/svg)", path.read_text()) == [], path


async def test_every_panel_of_the_home_page_can_be_read(console: Console, make_user: MakeUser) -> None:
    page = (await (await console((await make_user("admin")).email)).get("/admin/")).text
    assert "New accounts by day" in page
    assert "This could not be read just now" not in page
