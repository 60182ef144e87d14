"""Nothing that changes something may come from another site, and every request gets an answer that is no 500."""

from collections.abc import Callable

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Mount, Route

from backend.features.users.models import User
from backend.testing import PASSWORD, Console, MakeUser, act, new_client

FOREIGN = [
    {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "same-site", "Origin": "http://sub.localhost"},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"},
    {"Sec-Fetch-Site": "none", "Origin": ""},
    {"Sec-Fetch-Site": "", "Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "", "Origin": "http://localhost.evil.example"},
    {"Sec-Fetch-Site": "", "Origin": "http://localhost:81"},
    {"Sec-Fetch-Site": "", "Origin": "file://localhost"},
    {"Sec-Fetch-Site": "", "Origin": "null"},
    {"Sec-Fetch-Site": "", "Origin": "http://["},
    {"Sec-Fetch-Site": "", "Origin": ""},
]


def console_of(app: FastAPI) -> Starlette:
    mount = next(route for route in app.routes if isinstance(route, Mount) and route.name == "admin")
    assert isinstance(mount.app, Starlette)
    return mount.app


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_other_sites_can_change_nothing(
    console: Console, make_user: MakeUser, session: AsyncSession, headers: dict[str, str]
) -> None:
    admin, victim = await make_user("admin"), await make_user("user")
    browser = await console(admin.email)
    form = {"email": "new@example.com", "password": PASSWORD, "role": "admin", "is_active": "y"}
    answers = [
        await browser.post("/admin/user/create", data=form, headers=headers),
        await browser.post(f"/admin/user/edit/{victim.id}", data=form, headers=headers),
        await browser.post(f"/admin/user/action/delete?pk={victim.id}", data={"confirmed": "1"}, headers=headers),
        await browser.post("/admin/logout", headers=headers),
        await browser.post("/admin/login", data={"username": victim.email, "password": PASSWORD}, headers=headers),
    ]
    assert [answer.status_code for answer in answers] == [403] * 5
    assert (await browser.get("/admin/")).status_code == 200
    await session.refresh(victim)
    assert victim.role == "user"


async def test_an_old_browser_may_sign_in_by_its_origin(client: httpx2.AsyncClient, make_user: MakeUser) -> None:
    form = {"username": (await make_user("admin")).email, "password": PASSWORD}
    answer = await client.post("/admin/login", data=form, headers={"Origin": "http://localhost"})
    assert answer.status_code == 303


async def test_signing_out_is_no_link(console: Console, make_user: MakeUser) -> None:
    browser = await console((await make_user("admin")).email)
    assert (await browser.get("/admin/logout")).status_code == 405
    assert (await browser.head("/admin/logout")).status_code == 405
    assert (await browser.get("/admin/")).status_code == 200


@pytest.mark.parametrize("page", ["login", "user/create", "user/list"])
async def test_head_is_get_without_a_body(console: Console, make_user: MakeUser, page: str) -> None:
    browser = await console((await make_user("admin")).email)
    assert (await browser.head(f"/admin/{page}")).status_code == 200


ADDRESSES = {
    **{
        f"user/details/{pk}": 404
        for pk in ("abc", "0", "-1", "9" * 30, "9" * 10, "1;2", "%00", "%ff", "٣", "2147483647")
    },
    "user/details/": 404,
    "user/edit/abc": 404,
    "user/edit/2147483647": 404,
    "nonsense/list": 404,
    "nonsense/create": 404,
    "nonsense/details/1": 404,
    "%ff/list": 404,
    "nonsense": 404,
    "user/list?page=abc": 400,
    "user/list?pageSize=abc": 400,
    "user/list?pageSize=0": 400,
    "user/list?page=" + "9" * 5000: 400,
    "user/list?page=-1": 302,
    "user/list?page=1" + "0" * 30: 302,
    "user/list?pageSize=1" + "0" * 30: 200,
    "user/list?sortBy=nonsense": 400,
    "user/list?sortBy=password_hash": 400,
    "user/list?sortBy=email&sort=nonsense": 200,
    "user/list?search=%00": 400,
    "user/list?search=" + "x" * 101: 400,
    "user/list?search=%ff%25_'\"": 200,
    "user/export/csv": 200,
    "user/export/nonsense": 404,
    "user/export/": 404,
    "nonsense/export/csv": 404,
    "user/import": 403,
    "user/import/template": 403,
    "nonsense/import": 404,
    "user/ajax/lookup?name=role&term=x": 400,
    "user/1/password_hash/download/": 404,
    "user/2147483647/password_hash/preview/": 404,
    "statics/nonsense": 404,
    "statics/%00": 404,
    "statics/../site.py": 404,
    "statics/..%2fsite.py": 404,
}


@pytest.mark.parametrize("address", ADDRESSES)
async def test_odd_addresses_have_an_answer(console: Console, make_user: MakeUser, address: str) -> None:
    browser = await console((await make_user("admin")).email)
    answer = await browser.get(f"/admin/{address}")
    assert answer.status_code == ADDRESSES[address], answer.text
    if answer.is_redirect:
        assert answer.headers["location"].startswith("http://localhost/admin/user/list?")
    if answer.status_code == 404:
        assert 'href="http://localhost/admin/"' in answer.text


@pytest.mark.parametrize(
    ("pks", "status"),
    [
        ([], 400),
        (["abc"], 404),
        (["2147483647"], 404),
        (["", "1"], 404),
        ([str(one) for one in range(1, 1002)], 400),
    ],
)
async def test_odd_deletions_have_an_answer(
    console: Console, make_user: MakeUser, session: AsyncSession, pks: list[str], status: int
) -> None:
    admin = await make_user("admin")
    browser = await console(admin.email)
    assert (await act(browser, "user", "delete", *pks)).status_code == status
    assert await session.get(User, admin.id)


async def test_files_in_a_form_are_left_aside(console: Console, make_user: MakeUser) -> None:
    admin = await make_user("admin")
    browser = await console(admin.email)
    files = {"email": ("a.txt", b"someone@example.com"), "unknown": ("", b""), "full_name": ("", b"")}
    answer = await browser.post(f"/admin/user/edit/{admin.id}", files=files)
    assert answer.status_code == 400
    assert "This field is required" in answer.text


@pytest.mark.parametrize("charset", ["unicode_escape", "utf-7", "bz2", "nonsense"])
async def test_the_clients_charset_breaks_nothing(client: httpx2.AsyncClient, charset: str) -> None:
    parts = (
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n\\ud800\r\n' for name in ("username", "password")
    )
    headers = {"Content-Type": f"multipart/form-data; boundary=x; charset={charset}", "Sec-Fetch-Site": "same-origin"}
    answer = await client.post("/admin/login", content="".join(parts) + "--x--\r\n", headers=headers)
    assert answer.status_code == 400


async def test_a_bug_is_a_page_that_tells_nothing(make_app: Callable[..., FastAPI]) -> None:
    async def boom(_request: Request) -> None:
        raise RuntimeError("the secret is swordfish")

    app = make_app()
    console_of(app).router.routes.insert(0, Route("/boom", boom))
    async with new_client(app) as client:
        answer = await client.get("/admin/boom")
    assert answer.status_code == 500
    assert "Something went wrong on our side" in answer.text
    assert "swordfish" not in answer.text


async def test_a_database_that_is_gone_is_503(make_app: Callable[..., FastAPI]) -> None:
    async with new_client(make_app(DATABASE_URL="postgresql://nobody@127.0.0.1:1/nothing")) as client:
        client.cookies.set("console_session", "anything")
        answer = await client.get("/admin/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "127.0.0.1" not in answer.text
