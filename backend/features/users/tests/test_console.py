"""Signing in to the console, and accounts in it, as a browser would."""

import html
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import col, func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.models import utc_now
from backend.features.users.models import User, UserSession
from backend.testing import PASSWORD, ClientFor, Console, MakeUser, act, new_client

Statements = Callable[[], AbstractContextManager[list[str]]]

REFUSAL = "Wrong e-mail address or password, or this account may not use the console."
NEW = {
    "email": "grace@example.com",
    "full_name": "Grace",
    "role": "staff",
    "is_active": "y",
    "password": "Nautilus-1954-x",
}


async def is_signed_in(browser: httpx2.AsyncClient) -> bool:
    return (await browser.get("/admin/")).status_code == 200


async def count(session: AsyncSession) -> int:
    return (await session.exec(select(func.count()).select_from(User))).one()


# --- signing in ----------------------------------------------------------------------------------------------------


async def test_the_cookie_is_opaque_and_hard_to_steal(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    admin = await make_user("admin")
    browser = await console(admin.email, None)
    answer = await browser.post("/admin/login", data={"username": f" {admin.email.upper()} ", "password": PASSWORD})
    assert (answer.status_code, answer.headers["location"]) == (303, "http://localhost/admin/")
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert set(attributes) == {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"}
    token = cookie.removeprefix("console_session=")
    stored = (await session.exec(select(UserSession).where(UserSession.kind == "console"))).one()
    assert len(token) >= 40
    assert token not in stored.model_dump_json()


async def test_password_fields_hide_what_is_typed_and_suit_password_managers(
    client: httpx2.AsyncClient, make_user: MakeUser, console: Console
) -> None:
    admin = await make_user("admin")
    browser = await console(admin.email)
    expected = {"login": "current-password", "user/create": "new-password", f"user/edit/{admin.id}": "new-password"}
    for page, kind in expected.items():
        shown = await (client if page == "login" else browser).get(f"/admin/{page}")
        [field] = [one for one in re.findall(r"<input[^>]*>", shown.text) if 'name="password"' in one]
        assert 'type="password"' in field
        assert f'autocomplete="{kind}"' in field
        assert not re.search(r"\son\w+=", shown.text)  # nothing keeps people from pasting


@pytest.mark.parametrize("stage", ["development", "staging"])
async def test_outside_development_the_cookie_needs_https(make_app: Callable[..., FastAPI], stage: str) -> None:
    app = make_app(ENVIRONMENT=stage)
    await app.state.database.start()
    async with new_client(app, headers={"Sec-Fetch-Site": "same-origin"}) as client:
        await client.post("/api/v1/auth/signup", json={"email": "ada@example.com", "password": PASSWORD})
        async with app.state.database.engine.begin() as connection:
            await connection.exec_driver_sql("UPDATE users SET role = 'admin'")
        answer = await client.post("/admin/login", data={"username": "ada@example.com", "password": PASSWORD})
    await app.state.database.close()
    assert answer.status_code == 303
    assert ("; Secure" in answer.headers["set-cookie"]) == (stage != "development")


async def test_every_failed_sign_in_reads_the_same(console: Console, make_user: MakeUser) -> None:
    user, staff = await make_user("user"), await make_user("staff")
    gone = await make_user("admin", is_active=False)
    browser = await console(staff.email, None)
    attempts = [
        {"username": staff.email, "password": "wrong"},
        {"username": "nobody@example.com", "password": PASSWORD},
        {"username": user.email, "password": PASSWORD},
        {"username": gone.email, "password": PASSWORD},
        {"username": staff.email},
        {"username": staff.email, "password": "x" * 5000},
        {"username": staff.email + "\x00", "password": PASSWORD},
        {},
    ]
    answers = [await browser.post("/admin/login", data=attempt) for attempt in attempts]
    assert [answer.status_code for answer in answers] == [400] * len(attempts)
    assert len({answer.text for answer in answers}) == 1
    assert REFUSAL in answers[0].text
    assert not any("set-cookie" in answer.headers for answer in answers)


async def test_a_failed_sign_in_leaves_the_session_that_is_there(console: Console, make_user: MakeUser) -> None:
    admin = await make_user("admin")
    browser = await console(admin.email)
    await browser.post("/admin/login", data={"username": admin.email, "password": "wrong"})
    assert await is_signed_in(browser)


async def test_signing_out_ends_the_session_on_the_server(console: Console, make_user: MakeUser) -> None:
    browser = await console((await make_user("admin")).email)
    cookie = {"Cookie": f"console_session={browser.cookies['console_session']}"}
    answer = await browser.post("/admin/logout")
    assert (answer.status_code, answer.headers["location"]) == (303, "http://localhost/admin/login")
    assert "console_session" not in browser.cookies
    replayed = await browser.get("/admin/", headers=cookie)
    assert (replayed.status_code, replayed.headers["location"]) == (302, "http://localhost/admin/login")


async def test_signing_in_again_ends_the_earlier_session(console: Console, make_user: MakeUser) -> None:
    admin = await make_user("admin")
    browser = await console(admin.email)
    old = {"Cookie": f"console_session={browser.cookies['console_session']}"}
    await browser.post("/admin/login", data={"username": admin.email, "password": PASSWORD})
    assert await is_signed_in(browser)
    browser.cookies.clear()
    assert (await browser.get("/admin/", headers=old)).status_code == 302


@pytest.mark.parametrize("change", [{"is_active": False}, {"role": "user"}, {"password": "Nautilus-1954-x"}], ids=str)
async def test_deactivation_demotion_and_a_new_password_end_sessions(
    console: Console, make_user: MakeUser, as_admin: httpx2.AsyncClient, change: dict[str, object]
) -> None:
    staff = await make_user("staff")
    browser = await console(staff.email)
    assert await is_signed_in(browser)
    answer = await as_admin.patch(f"/api/v1/users/{staff.id}", json=change)
    assert answer.status_code == 200, answer.text
    assert not await is_signed_in(browser)


async def test_sessions_expire(console: Console, make_user: MakeUser, session: AsyncSession) -> None:
    browser = await console((await make_user("staff")).email)
    await session.exec(update(UserSession).values(expires_at=utc_now() - timedelta(seconds=1)))
    await session.commit()
    assert not await is_signed_in(browser)


@pytest.mark.parametrize("token", ["", "nonsense", "x" * 5000, '"\\377"', "ä"])
async def test_a_made_up_cookie_opens_nothing(client: httpx2.AsyncClient, token: str) -> None:
    answer = await client.get("/admin/", headers=[(b"Cookie", f"console_session={token}".encode("latin-1"))])
    assert answer.status_code == 302


# --- what staff may do ---------------------------------------------------------------------------------------------


async def test_staff_see_accounts_and_cannot_change_them(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    staff, other = await make_user("staff"), await make_user("user")
    browser = await console(staff.email)
    listed = await browser.get("/admin/user/list")
    details = await browser.get(f"/admin/user/details/{other.id}")
    for page in (listed, details):
        assert page.status_code == 200
        assert other.email in page.text
        assert not [word for word in ("/create", "/edit/", "/delete") if word in page.text]
    answers = [
        await browser.get("/admin/user/create"),
        await browser.post("/admin/user/create", data=NEW),
        await browser.get(f"/admin/user/edit/{other.id}"),
        await browser.post(f"/admin/user/edit/{staff.id}", data=NEW | {"role": "admin"}),
        await act(browser, "user", "delete", other.id),
    ]
    assert [answer.status_code for answer in answers] == [403] * 5
    await session.refresh(staff)
    assert staff.role == "staff"


async def test_the_password_hash_is_on_no_page(console: Console, make_user: MakeUser) -> None:
    admin = await make_user("admin")
    browser = await console(admin.email)
    for page in ("list", "create", f"details/{admin.id}", f"edit/{admin.id}"):
        text = (await browser.get(f"/admin/user/{page}")).text
        assert "argon2" not in text
        assert "password_hash" not in text


@pytest.mark.parametrize("rows", [1, 60])
async def test_a_list_takes_two_statements_whatever_its_size(
    console: Console, make_user: MakeUser, session: AsyncSession, statements: Statements, rows: int
) -> None:
    browser = await console((await make_user("admin")).email)
    session.add_all(User(email=f"{number}@example.com", password_hash="!") for number in range(rows))
    await session.commit()
    await browser.get("/admin/user/create")
    with statements() as seen:
        page = await browser.get("/admin/user/list?pageSize=50&sortBy=email")
    assert page.text.count("data-select ") == min(rows + 1, 50)
    assert len(seen) == 2, seen


async def test_pages_sort_and_search_find_everybody_once(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    browser = await console((await make_user("admin", email="boss@example.com")).email)
    session.add_all(
        User(email=f"n{number}@example.com", full_name="Same_Name", password_hash="!") for number in range(60)
    )
    await session.commit()
    seen = []
    for page in (1, 2, 3):
        text = (await browser.get(f"/admin/user/list?search=same_name&sortBy=role&sort=desc&page={page}")).text
        seen += [part.split('"')[0] for part in text.split('aria-label="Select ')[2:]]
    assert sorted(seen) == sorted(f"n{number}@example.com" for number in range(60))
    assert "Nothing matches" in (await browser.get("/admin/user/list?search=same%25name")).text


# --- writing -------------------------------------------------------------------------------------------------------


async def test_a_password_set_and_shown_here_is_taken_to_the_letter(console: Console, make_user: MakeUser) -> None:
    browser = await console((await make_user("admin")).email)
    password = "  Nautilus-1954-x  "
    await browser.post("/admin/user/create", data=NEW | {"password": password, "save": "Save"})
    assert await is_signed_in(await console(NEW["email"], password))
    stranger = await console(NEW["email"], None)
    for other in (password.strip(), password.lower()):
        answer = await stranger.post("/admin/login", data={"username": NEW["email"], "password": other})
        assert REFUSAL in answer.text


async def test_an_administrator_creates_edits_and_deletes_an_account(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    browser = await console((await make_user("admin")).email)
    created = await browser.post("/admin/user/create", data=NEW | {"save": "Save"})
    assert (created.status_code, created.headers["location"]) == (302, "http://localhost/admin/user/list")
    user = (await session.exec(select(User).where(User.email == NEW["email"]))).one()
    assert (user.full_name, user.role, user.is_active) == ("Grace", "staff", True)
    assert await is_signed_in(await console(user.email, NEW["password"]))

    changed = {"email": "HOPPER@example.com", "full_name": " Hopper ", "role": "user", "save": "Save"}
    assert (await browser.post(f"/admin/user/edit/{user.id}", data=changed)).status_code == 302
    await session.refresh(user)
    assert (user.email, user.full_name, user.role, user.is_active) == ("hopper@example.com", "Hopper", "user", False)

    deleted = await act(browser, "user", "delete", user.id)
    assert (deleted.status_code, deleted.headers["location"]) == (303, "http://localhost/admin/user/list")
    assert (await session.exec(select(User).where(col(User.id) == user.id))).first() is None


BAD = {
    "no address": ({"email": ""}, "This field is required"),
    "not an address": ({"email": "nonsense"}, "Value is not a valid email address"),
    "long name": ({"full_name": "x" * 201}, "String should have at most 200 characters"),
    "NUL in the name": ({"full_name": "a\x00b"}, "This text has characters that cannot be stored"),
    "unknown role": ({"role": "root"}, "Not a valid choice"),
    "no password": ({"password": ""}, "This password is too weak: use at least 10 characters"),
    "weak password": ({"password": "aaaaaaaaaaaa"}, "This password is too weak: use at least 5 different characters"),
    "long password": ({"password": "Ab3-" * 40}, "Use at most 128 characters"),
}


@pytest.mark.parametrize("case", BAD)
async def test_forms_are_held_to_the_rules_of_the_api(
    console: Console, make_user: MakeUser, session: AsyncSession, case: str
) -> None:
    fields, message = BAD[case]
    browser = await console((await make_user("admin")).email)
    answer = await browser.post("/admin/user/create", data=NEW | fields)
    assert answer.status_code == 400
    assert message in html.unescape(answer.text)
    assert NEW["password"] not in answer.text
    assert await count(session) == 1


async def test_a_taken_address_is_said_without_sql(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    browser = await console((await make_user("admin", email="ada@example.com")).email)
    answer = await browser.post("/admin/user/create", data=NEW | {"email": "Ada@example.com"})
    assert answer.status_code == 400
    assert "There is an account with this e-mail address already" in answer.text
    assert "INSERT" not in answer.text
    assert await count(session) == 1


async def test_the_last_administrator_stays(console: Console, make_user: MakeUser, session: AsyncSession) -> None:
    admin, other = await make_user("admin"), await make_user("user")
    browser = await console(admin.email)
    same = {"email": admin.email, "role": "admin", "is_active": "y"}
    for change in ({"role": "staff"}, {"is_active": None}):
        form = {name: value for name, value in (same | change).items() if value}
        answer = await browser.post(f"/admin/user/edit/{admin.id}", data=form)
        assert answer.status_code == 400
        assert "This is the last active administrator" in answer.text
    refused = await act(browser, "user", "delete", other.id, admin.id)
    assert refused.status_code == 409
    assert "This is the last active administrator" in refused.text
    assert await count(session) == 2, "all or none are deleted"
    assert await is_signed_in(browser)


async def test_an_edit_does_not_overwrite_what_somebody_else_changed_meanwhile(
    console: Console, make_user: MakeUser, as_admin: httpx2.AsyncClient, session: AsyncSession
) -> None:
    browser = await console((await make_user("admin")).email)
    user = await make_user("user", full_name="Before")
    page = (await browser.get(f"/admin/user/edit/{user.id}")).text
    version = page.split('name="version" type="hidden" value="')[1].split('"')[0]
    await as_admin.patch(f"/api/v1/users/{user.id}", json={"full_name": "Meanwhile"})
    answer = await browser.post(f"/admin/user/edit/{user.id}", data={"email": user.email, "version": version})
    assert answer.status_code == 409
    assert "Somebody else changed this record in the meantime" in answer.text
    await session.refresh(user)
    assert user.full_name == "Meanwhile"


async def test_accounts_are_deactivated_and_activated_together(
    console: Console, make_user: MakeUser, session: AsyncSession, client_for: ClientFor
) -> None:
    users = [await make_user(), await make_user()]
    theirs = client_for(users[0])
    browser = await console((await make_user("admin")).email)
    ids = [user.id for user in users]
    page = await browser.post("/admin/user/action/deactivate", data={"pks": [str(one) for one in ids]})
    assert page.status_code == 200
    assert "Deactivate 2 users?" in page.text
    assert (await theirs.get("/api/v1/auth/me")).status_code == 200, "nothing was confirmed yet"
    done = await act(browser, "user", "deactivate", *ids)
    assert done.status_code == 303
    assert "2 users deactivated." in (await browser.get(done.headers["location"])).text
    assert "2 users deactivated." not in (await browser.get(done.headers["location"])).text, "it is said once"
    assert (await theirs.get("/api/v1/auth/me")).status_code == 401
    assert (await act(browser, "user", "activate", *ids)).status_code == 303
    for user in users:
        await session.refresh(user)
    assert all(user.is_active for user in users)


async def test_who_looks_after_accounts_signs_nobody_out_who_may_do_more(console: Console, make_user: MakeUser) -> None:
    admin, other = await make_user("admin"), await make_user("admin")
    browser, theirs = await console(admin.email), await console(other.email)
    assert (await act(await console((await make_user("staff")).email), "user", "sign_out", other.id)).status_code == 403
    assert await is_signed_in(theirs)
    assert (await act(browser, "user", "sign_out", other.id)).status_code == 303
    assert not await is_signed_in(theirs)


async def test_what_is_dangerous_asks_for_the_password_some_time_after_signing_in(
    app: FastAPI, console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    admin, other = await make_user("admin"), await make_user()
    browser = await console(admin.email)
    long_ago = utc_now() - timedelta(hours=1)
    await session.exec(update(UserSession).where(col(UserSession.user_id) == admin.id).values(created_at=long_ago))
    await session.commit()
    page = await browser.post(f"/admin/user/action/delete?pk={other.id}")
    assert "Your password" in page.text
    form = {"pks": str(other.id), "confirmed": "1"}
    for password in ("", "wrong"):
        refused = await browser.post("/admin/user/action/delete", data=form | {"password": password})
        assert refused.status_code == 403
        assert "This is not your password" in refused.text
    assert (await browser.post("/admin/user/action/delete", data=form | {"password": PASSWORD})).status_code == 303
    assert await count(session) == 1
