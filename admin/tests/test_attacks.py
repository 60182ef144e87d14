"""Attacks, replayed with the requests that an attacker would send: from another site, with a stolen cookie, by hand.

They walk what there is, the routes, the views, the tables behind them: a new one is attacked without a line here.
"""

import html
import re
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import JSON, Column, Table, inspect
from sqlmodel import SQLModel, col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.routing import Route

from admin.guard import REFUSAL, SAFE_METHODS
from admin.tests.test_guard import FOREIGN, console_of
from admin.tests.test_permissions import views
from backend.core.auth import Rank
from backend.core.console import ConsoleView
from backend.core.models import SecretText, utc_now
from backend.features import FEATURES
from backend.features.users.events import PermissionsAsked
from backend.features.users.models import User, UserSession
from backend.testing import BASE_URL, ON_VIOLATION, PASSWORD, Console, MakeUser, act, new_client

Statements = Callable[[], AbstractContextManager[list[str]]]

NEW_PASSWORD = "Nautilus-1954-x"
WRITES = ("INSERT", "UPDATE", "DELETE")
EVIL = "https://evil.example/"


def written(seen: list[str]) -> list[str]:
    return [one for one in seen if one.lstrip().upper().startswith(WRITES)]


def routes_of(app: FastAPI) -> Iterator[tuple[str, set[str]]]:
    """Address → methods of all that the console serves; an example for each placeholder."""
    for route in console_of(app).router.routes:
        if isinstance(route, Route):
            address = route.path.replace("{identity}", "user")
            yield "/admin" + re.sub(r"{\w+(:path)?}", "1", address), set(route.methods or ())


async def count(session: AsyncSession, model: type[SQLModel]) -> int:
    return (await session.exec(select(func.count()).select_from(model))).one()


@pytest.fixture
async def root(console: Console, make_user: MakeUser) -> httpx2.AsyncClient:
    """The browser of an administrator who is signed in."""
    return await console((await make_user("admin", email="root@example.com")).email)


# --- from a page elsewhere -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_no_address_takes_a_form_from_elsewhere(
    app: FastAPI, root: httpx2.AsyncClient, statements: Statements, headers: dict[str, str]
) -> None:
    form = {"pks": "1", "pk": "1", "confirmed": "1", "action": "elsewhere", "email": "x@example.com", "save": "Save"}
    tried = 0
    for address, methods in routes_of(app):
        for method in methods - SAFE_METHODS:
            with statements() as seen:
                answer = await root.request(method, f"{address}?pk=1", data=form, headers=headers)
            assert (answer.status_code, answer.text, seen) == (403, REFUSAL, []), address
            assert "set-cookie" not in answer.headers
            tried += 1
    assert tried > 5
    assert (await root.get("/admin/")).status_code == 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"])
async def test_links_and_pictures_do_nothing(
    app: FastAPI, root: httpx2.AsyncClient, statements: Statements, method: str
) -> None:
    """What a page elsewhere makes a browser fetch, with all that a form would have said in the address."""
    everything = {"pk": "1", "pks": "1", "confirmed": "1", "action": "elsewhere", "_method": "POST", "save": "Save"}
    headers = {"X-HTTP-Method-Override": "POST", "X-Method-Override": "POST"}
    for address, methods in routes_of(app):
        if address.endswith("login"):
            everything |= {"username": "root@example.com", "password": PASSWORD}
        with statements() as seen:
            answer = await root.request(method, address, params=everything, headers=headers)
        assert written(seen) == [], address
        if method not in methods and not (method == "HEAD" and "GET" in methods):
            assert answer.status_code in (404, 405), address
        assert "console_session" not in answer.headers.get("set-cookie", "")
    assert (await root.get("/admin/")).status_code == 200


@pytest.mark.parametrize("headers", FOREIGN[:5], ids=str)
async def test_nobody_is_signed_in_to_an_attackers_account(
    client: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession, headers: dict[str, str]
) -> None:
    attacker = await make_user("admin")
    form = {"username": attacker.email, "password": PASSWORD}
    before = await count(session, UserSession)
    posted = await client.post("/admin/login", data=form, headers=headers)
    linked = await client.get("/admin/login", params=form)
    assert (posted.status_code, linked.status_code) == (403, 200)
    assert "set-cookie" not in {*posted.headers, *linked.headers}
    assert await count(session, UserSession) == before


async def test_a_cookie_from_before_is_not_adopted(app: FastAPI, console: Console, make_user: MakeUser) -> None:
    """Session fixation: what the attacker put into the victim's browser, made up or good, is worth nothing after."""
    victim, attacker = await make_user("admin"), await make_user("admin")
    good = (await console(attacker.email)).cookies["console_session"]
    for planted in ("planted-by-somebody", good):
        async with new_client(app, headers={"Sec-Fetch-Site": "same-origin"}) as browser:
            cookie = {"Cookie": f"console_session={planted}"}
            form = {"username": victim.email, "password": PASSWORD}
            answer = await browser.post("/admin/login", data=form, headers=cookie)
            assert answer.status_code == 303
            assert browser.cookies["console_session"] != planted
            assert victim.email in (await browser.get("/admin/account")).text
        async with new_client(app) as thief:
            assert (await thief.get("/admin/", headers=cookie)).status_code == 302


# --- with a stolen cookie ------------------------------------------------------------------------------------------

Own = Callable[[httpx2.AsyncClient, httpx2.AsyncClient, User], Awaitable[httpx2.Response]]
AGAIN = {"current_password": PASSWORD, "new_password": NEW_PASSWORD, "again": NEW_PASSWORD}


async def sign_out(mine: httpx2.AsyncClient, _boss: httpx2.AsyncClient, _me: User) -> httpx2.Response:
    return await mine.post("/admin/logout")


async def sign_in_again(mine: httpx2.AsyncClient, _boss: httpx2.AsyncClient, me: User) -> httpx2.Response:
    return await mine.post("/admin/login", data={"username": me.email, "password": PASSWORD})


async def change_the_password(mine: httpx2.AsyncClient, _boss: httpx2.AsyncClient, _me: User) -> httpx2.Response:
    return await mine.post("/admin/account", data={"action": "password"} | AGAIN)


async def be_given_a_password(_mine: httpx2.AsyncClient, boss: httpx2.AsyncClient, me: User) -> httpx2.Response:
    form = {"email": me.email, "role": me.role, "is_active": "y", "password": NEW_PASSWORD, "save": "Save"}
    return await boss.post(f"/admin/user/edit/{me.id}", data=form)


async def be_deactivated(_mine: httpx2.AsyncClient, boss: httpx2.AsyncClient, me: User) -> httpx2.Response:
    return await act(boss, "user", "deactivate", me.id)


async def be_signed_out(_mine: httpx2.AsyncClient, boss: httpx2.AsyncClient, me: User) -> httpx2.Response:
    return await act(boss, "user", "sign_out", me.id)


async def be_deleted(_mine: httpx2.AsyncClient, boss: httpx2.AsyncClient, me: User) -> httpx2.Response:
    return await act(boss, "user", "delete", me.id)


async def be_demoted(_mine: httpx2.AsyncClient, boss: httpx2.AsyncClient, me: User) -> httpx2.Response:
    form = {"email": me.email, "role": "user", "is_active": "y", "save": "Save"}
    return await boss.post(f"/admin/user/edit/{me.id}", data=form)


ENDS: list[Own] = [
    sign_out,
    sign_in_again,
    change_the_password,
    be_given_a_password,
    be_deactivated,
    be_signed_out,
    be_deleted,
    be_demoted,
]


@pytest.mark.parametrize("way", ENDS, ids=lambda way: way.__name__)
async def test_a_stolen_cookie_opens_nothing_any_more(
    app: FastAPI, console: Console, make_user: MakeUser, root: httpx2.AsyncClient, session: AsyncSession, way: Own
) -> None:
    me = await make_user("staff")
    mine = await console(me.email)
    async with new_client(app, headers={"Sec-Fetch-Site": "same-origin"}) as thief:
        thief.cookies.set("console_session", mine.cookies["console_session"])
        assert (await thief.get("/admin/user/list")).status_code == 200
        answer = await way(mine, root, me)
        assert answer.status_code in (200, 302, 303), answer.text
        users, sessions = await count(session, User), await count(session, UserSession)
        form = {"action": "elsewhere", "pks": "1", "confirmed": "1"}
        for address, methods in routes_of(app):
            for method in (methods - {"HEAD"}) if not address.endswith(("/statics", "/logout")) else ():
                answer = await thief.request(method, address, data=form if method == "POST" else None)
                if not address.endswith("/login"):
                    assert (answer.status_code, answer.headers.get("location")) == (302, f"{BASE_URL}/admin/login")
        assert (await count(session, User), await count(session, UserSession)) == (users, sessions)


async def test_who_changes_the_password_stays_signed_in(console: Console, make_user: MakeUser, app: FastAPI) -> None:
    """With another cookie: whoever had a copy of the former one is out."""
    me = await make_user("staff")
    mine = await console(me.email)
    before = mine.cookies["console_session"]
    answer = await change_the_password(mine, mine, me)
    assert answer.status_code == 200
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(answer.headers["set-cookie"].split("; "))
    assert mine.cookies["console_session"] != before
    assert (await mine.get("/admin/account")).status_code == 200


async def test_signing_out_elsewhere_ends_the_copy_of_another_device(
    app: FastAPI, console: Console, make_user: MakeUser
) -> None:
    me = await make_user("staff")
    lost, mine = await console(me.email), await console(me.email)
    assert (await mine.post("/admin/account", data={"action": "elsewhere"})).status_code == 200
    assert (await lost.get("/admin/")).status_code == 302
    assert (await mine.get("/admin/")).status_code == 200


# --- with other ids ------------------------------------------------------------------------------------------------

ODD_IDS = (
    "",
    "0",
    "-1",
    "1 OR 1=1",
    "1,2",
    "\u0661",
    "+1",
    "1.0",
    "0x1",
    "2147483648",
    "9" * 40,
    "\x00",
    "../1",
    "None",
)


@pytest.mark.parametrize("number", ODD_IDS)
async def test_ids_that_are_none_end_no_session(
    root: httpx2.AsyncClient, session: AsyncSession, make_user: MakeUser, number: str
) -> None:
    await make_user("staff")
    before = await count(session, UserSession)
    answer = await root.post("/admin/account", data={"action": "end", "session": number})
    assert answer.status_code == 404
    assert await count(session, UserSession) == before


async def test_nobody_ends_another_persons_session_on_their_own_page(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    victim = await make_user("staff")
    thief = await console((await make_user("admin")).email)
    theirs = (await session.exec(select(UserSession.id).where(col(UserSession.user_id) == victim.id))).one()
    answer = await thief.post("/admin/account", data={"action": "end", "session": str(theirs), "user_id": victim.id})
    assert answer.status_code == 404
    assert (await session.exec(select(UserSession.id).where(col(UserSession.user_id) == victim.id))).one() == theirs


async def test_odd_ids_reach_nothing(app: FastAPI, root: httpx2.AsyncClient, statements: Statements) -> None:
    for view in views(app):
        for name in view.actions:
            for number in ODD_IDS[1:]:
                with statements() as seen:
                    answer = await act(root, view.identity, name, number)
                assert answer.status_code == 404, (view, name, number)
                assert written(seen) == []


async def test_the_ids_of_another_view_reach_nothing(
    root: httpx2.AsyncClient, session: AsyncSession, make_user: MakeUser
) -> None:
    """All or nothing: a good one beside one that is none of this view's stays as it is."""
    user = await make_user("user")
    alien = 2_000_000_000
    stray = UserSession(id=alien, sid="f" * 32, user_id=user.id or 0, kind="token", expires_at=utc_now())
    session.add(stray)
    await session.commit()
    for name in ("deactivate", "delete", "sign_out"):
        assert (await act(root, "user", name, user.id, alien)).status_code == 404
    await session.refresh(user)
    assert user.is_active


@pytest.fixture
def everything_is_held(app: FastAPI) -> Iterator[None]:
    """Everybody holds every permission, whatever the rank."""

    async def all_of_them(_session: AsyncSession, asked: PermissionsAsked) -> None:
        if asked.rank >= Rank.STAFF:
            asked.held.update(app.state.registry.permissions)

    handlers = app.state.database.info["handlers"]
    app.state.database.info["handlers"] = handlers | {PermissionsAsked: (all_of_them,)}
    yield
    app.state.database.info["handlers"] = handlers


@pytest.mark.usefixtures("everything_is_held")
async def test_a_rank_below_reaches_no_administrator_whatever_roles_permit(
    app: FastAPI, console: Console, make_user: MakeUser, session: AsyncSession, statements: Statements
) -> None:
    admin, staff = await make_user("admin"), await make_user("staff")
    browser = await console(staff.email)
    theirs = (await session.exec(select(UserSession.id).where(col(UserSession.user_id) == admin.id))).one()
    user_view = next(view for view in views(app) if view.identity == "user")
    added = app.state.registry.record_actions.get("user", {})
    with statements() as seen:
        for name in (*user_view.actions, *added):
            answer = await act(browser, "user", name, admin.id)
            assert answer.status_code == 403, (name, answer.text)
        assert (await act(browser, "user-session", "delete", theirs)).status_code == 403
        form = {"email": admin.email, "full_name": "Taken", "role": "admin", "is_active": "y", "save": "Save"}
        for address in (f"edit/{admin.id}", f"edit/{staff.id}", "create"):
            answer = await browser.post(f"/admin/user/{address}", data=form | {"password": NEW_PASSWORD})
            assert answer.status_code == 400, (address, answer.text)
            assert "above your own" in answer.text or "more than you" in answer.text
    assert written(seen) == []


# --- with other fields ---------------------------------------------------------------------------------------------

HIDDEN = {
    "id": "4711",
    "version": "",
    "created_at": "2001-01-01 00:00:00",
    "updated_at": "2001-01-01 00:00:00",
    "password_hash": "$argon2id$planted",
    "email_verified_at": "2001-01-01 00:00:00",
    "owner_id": "1",
    "is_superuser": "y",
    "permissions": "users:delete",
    "token_hash": "x",
    "__class__": "x",
}


async def test_fields_that_no_form_has_are_not_stored(root: httpx2.AsyncClient, session: AsyncSession) -> None:
    form = {"email": "ada@example.com", "full_name": "Ada", "role": "user", "is_active": "y", "save": "Save"}
    created = await root.post("/admin/user/create", data=form | HIDDEN | {"password": NEW_PASSWORD})
    assert created.status_code == 302, created.text
    user = (await session.exec(select(User).where(col(User.email) == "ada@example.com"))).one()
    before = user.model_dump()
    assert user.id != 4711
    assert (user.version, user.email_verified_at, user.created_at.year > 2001) == (1, None, True)
    assert "planted" not in user.password_hash
    edited = await root.post(f"/admin/user/edit/{user.id}", data=form | HIDDEN | {"full_name": "Grace"})
    assert edited.status_code == 302, edited.text
    await session.refresh(user)
    changed = {name for name, value in user.model_dump().items() if value != before[name]}
    assert changed <= {"full_name", "version", "updated_at"}
    assert user.full_name == "Grace"


@pytest.mark.parametrize("field", ["role", "email", "id", "is_active", "password_hash", "email_verified_at"])
async def test_ones_own_page_changes_the_name_and_nothing_else(
    console: Console, make_user: MakeUser, session: AsyncSession, field: str
) -> None:
    me = await make_user("staff")
    before = me.model_dump()
    answer = await (await console(me.email)).post(
        "/admin/account", data={"action": "profile", "full_name": "X", field: "admin"}
    )
    assert answer.status_code == 422
    await session.refresh(me)
    assert me.model_dump() == before


async def test_without_the_permission_a_form_sent_anyway_stores_nothing(
    app: FastAPI, console: Console, make_user: MakeUser, statements: Statements
) -> None:
    """Staff look; what the pages do not offer them is refused when it is sent all the same."""
    staff, victim = await make_user("staff"), await make_user("user")
    browser = await console(staff.email)
    form = {"email": "x@example.com", "role": "admin", "is_active": "y", "password": NEW_PASSWORD, "name": "x"}
    user_view = next(view for view in views(app) if view.identity == "user")
    with statements() as seen:
        assert (await browser.post("/admin/user/create", data=form)).status_code == 403
        assert (await browser.post(f"/admin/user/edit/{victim.id}", data=form)).status_code == 403
        assert (await browser.post(f"/admin/user/edit/{staff.id}", data=form)).status_code == 403
        for name in user_view.actions:
            assert (await act(browser, "user", name, victim.id)).status_code == 403
    assert written(seen) == []


@pytest.mark.skipif("items" not in FEATURES, reason="is about items")
async def test_an_items_owner_is_not_what_the_form_says(root: httpx2.AsyncClient, make_user: MakeUser) -> None:
    victim = await make_user("user")
    form = {"name": "Lamp", "price": "1.00", "stock": "1", "owner_id": str(victim.id), "id": "4711", "save": "Save"}
    assert (await root.post("/admin/item/create", data=form)).status_code == 302
    page = (await root.get("/admin/item/list")).text
    assert "Lamp" in page
    assert f"/admin/user/details/{victim.id}" not in page
    assert "/admin/item/details/4711" not in page


BODIES: dict[str, dict[str, Any]] = {
    "files": {"files": dict.fromkeys(("action", "password", "code", "pks", "confirmed", "email"), ("a.txt", b"x"))},
    "nul": {"data": {"action": "begin", "password": "\x00", "code": "\x00", "session": "\x00", "username": "\x00"}},
    "json": {"json": {"action": "begin"}},
    "cut short": {"content": "--x\r\nContent-Disp", "headers": {"Content-Type": "multipart/form-data; boundary=x"}},
    "no boundary": {"content": "x", "headers": {"Content-Type": "multipart/form-data"}},
    "many fields": {"data": {f"f{number}": "x" for number in range(1500)}},
}
for _action in ("begin", "confirm", "renew", "disable", "password", "profile", "end"):
    _parts = {"action": _action} | dict.fromkeys(
        ("password", "code", "session", "full_name", "current_password", "new_password", "again", "query", "pks"),
        "\\ud800",
    )
    _body = "".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{it}\r\n' for name, it in _parts.items()
    )
    _type = {"Content-Type": "multipart/form-data; boundary=x; charset=unicode_escape"}
    BODIES[f"lone surrogates, {_action}"] = {"content": _body + "--x--\r\n", "headers": _type}


@pytest.mark.parametrize("body", BODIES)
async def test_no_form_however_odd_breaks_a_page(app: FastAPI, root: httpx2.AsyncClient, body: str) -> None:
    for address, methods in routes_of(app):
        if "POST" in methods and not address.endswith("/logout"):
            answer = await root.post(address, **BODIES[body])
            assert answer.status_code < 500, address


# --- leading elsewhere ---------------------------------------------------------------------------------------------

NEXT = dict.fromkeys(
    ("next", "url", "redirect", "redirect_to", "return_to", "back", "continue", "query", "referer"), EVIL
)


@pytest.mark.parametrize(
    "query", ["//evil.example/", EVIL, "\r\nLocation: " + EVIL, "#@evil.example", "a=b&next=" + EVIL]
)
async def test_no_parameter_leads_to_another_site(console: Console, make_user: MakeUser, query: str) -> None:
    admin = await make_user("admin")
    browser = await console(admin.email)
    browser.headers |= {"Referer": EVIL, "X-Forwarded-Host": "evil.example", "X-Forwarded-Prefix": "//evil.example"}
    victims = [await make_user("user") for _ in range(2)]
    form = NEXT | {"query": query}
    user = {"email": "n@example.com", "password": NEW_PASSWORD, "role": "user", "is_active": "y", "save": query}
    answers = [
        await browser.get("/admin/login", params=NEXT),
        await browser.get("/admin//evil.example/"),
        await browser.get("/admin/user/list/"),
        await browser.get("/admin/user/list", params=NEXT | {"page": "-1"}),
        await browser.post("/admin/user/create", params=form, data=NEXT | user),
        await browser.post(
            f"/admin/user/edit/{victims[0].id}", params=form, data=NEXT | user | {"email": "m@example.com"}
        ),
        await browser.post("/admin/user/action/deactivate", data=form | {"pks": str(victims[0].id), "confirmed": "1"}),
        await browser.post("/admin/user/action/delete", data=form | {"pks": str(victims[1].id), "confirmed": "1"}),
        await browser.post("/admin/login", params=NEXT, data=NEXT | {"username": admin.email, "password": PASSWORD}),
        await browser.post("/admin/logout", params=NEXT, data=NEXT),
    ]
    assert sum(answer.is_redirect for answer in answers) >= 7
    for answer in answers:
        assert answer.status_code < 500
        if answer.is_redirect:
            assert answer.headers["location"].startswith(f"{BASE_URL}/admin/"), answer.url
        assert not re.search(r'(?:href|action|formaction|src)="(?:https?:)?//(?!localhost/)', answer.text)


async def test_names_put_no_header_into_answers(root: httpx2.AsyncClient, session: AsyncSession) -> None:
    injected = "x\r\nSet-Cookie: planted=1\r\nX-Planted: 1"
    form = {"email": "crlf@example.com", "password": NEW_PASSWORD, "role": "user", "is_active": "y", "save": "Save"}
    answers = [
        await root.post("/admin/user/create", params={"search": injected}, data=form | {"full_name": injected}),
        await root.post("/admin/user/create", data=form | {"full_name": injected, "email": "crlf2@example.com"}),
        await root.get("/admin/user/list", params={"search": injected}),
        await root.get("/admin/search", params={"search": injected}),
        await root.get("/admin/user/list", params={"search": injected, "page": "-1"}),
    ]
    made = (await session.exec(select(User.id).where(col(User.email).startswith("crlf")))).all()
    answers += [
        await root.post(
            "/admin/user/action/delete", data={"pks": str(one), "confirmed": "1", "query": f"search={injected}"}
        )
        for one in made
    ]
    for answer in answers:
        assert answer.status_code < 500
        assert "x-planted" not in answer.headers
        for name, value in answer.headers.items():
            assert not re.search(r"[\r\n]", value), name
        assert "planted" not in answer.cookies


# --- what is shown -------------------------------------------------------------------------------------------------

PAYLOAD = "\"'><img src=x onerror=alert(1)>"
SHORT = "<b>"  # where there is no room for more
LONG = 40
SECRET = "kept-to-itself"
RAW = re.compile(r"<img src=x|<b>|\son\w+=(?!alert)|javascript:")


def value_for(column: Column[Any], number: int) -> Any:
    if isinstance(column.type, SecretText):
        return f"{SECRET}-{number}"[: column.type.length]
    if isinstance(column.type, JSON):
        return {PAYLOAD: [PAYLOAD, PAYLOAD]}
    stored: Any = getattr(column.type, "impl_instance", column.type)
    kind, length = stored.python_type, getattr(stored, "length", None) or LONG
    if kind is str:
        return f"{PAYLOAD}{number}" if length >= LONG else f"{SHORT}{number}" if column.unique else SHORT
    examples = {bool: True, int: number, datetime: utc_now() + timedelta(hours=1)}
    return examples[kind]


class Poisoner:
    """Writes a row into each table that a view shows, the payload in each text column: straight, past all rules."""

    def __init__(self, session: AsyncSession, person: User) -> None:
        self.session = session
        self.rows: dict[Table, dict[str, Any]] = {}
        self.rows[User.__table__] = person.model_dump()  # type: ignore[attr-defined]

    async def row(self, table: Table) -> dict[str, Any]:
        if table not in self.rows:
            number = 7_000 + len(self.rows)
            values = {}
            for column in table.columns:
                if keys := list(column.foreign_keys):
                    target = keys[0].column
                    values[column.name] = None if target.table is table else (await self.row(target.table))[target.name]
                elif column.name != "deleted_at":  # what is deleted is in no list
                    values[column.name] = value_for(column, number)
            await (await self.session.connection()).execute(table.insert().values(values))
            self.rows[table] = values
        return self.rows[table]


Look = Callable[..., Awaitable[None]]


@pytest.fixture
def look(root: httpx2.AsyncClient) -> Look:
    """Open a page, or send it a form: nothing on it runs. `says`: what was planted is to be read there."""

    async def open_page(address: str, *, says: bool = False, **options: Any) -> None:
        answer = await root.request("POST" if "data" in options else "GET", f"/admin/{address}", **options)
        assert answer.status_code in (200, 400, 422), (address, answer.text)
        assert RAW.findall(answer.text) == [], address
        assert SECRET not in answer.text, address
        if says:
            assert "<img src=x" in html.unescape(answer.text).replace("\t", " "), f"{address} shows nothing of it"

    return open_page


def texts_of(view: type[ConsoleView], row: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """The pages that show a row, and whether what was planted is among the columns they show."""
    for page, columns in {"list": view.column_list, f"details/{row['id']}": view.column_details_list}.items():
        names = [one if isinstance(one, str) else one.key for one in columns]
        yield page, any(PAYLOAD in str(row.get(name)) for name in names)


async def look_at_forms(root: httpx2.AsyncClient, look: Look, view: type[ConsoleView], pk: int) -> None:
    """What is stored, and what comes back because it was refused."""
    if view.can_edit:
        await look(f"{view.identity}/edit/{pk}")
    if view.can_create:
        page = (await root.get(f"/admin/{view.identity}/create")).text
        names = set(re.findall(r'<(?:input|select|textarea)[^>]* name="(\w+)"', page)) - {"save", "search"}
        for payload in (PAYLOAD, SHORT):
            await look(f"{view.identity}/create", data=dict.fromkeys(names, payload))


async def test_what_is_stored_is_shown_and_never_run(
    app: FastAPI, root: httpx2.AsyncClient, look: Look, make_user: MakeUser, session: AsyncSession
) -> None:
    victim = await make_user("admin", email=f"{PAYLOAD}@example.com".replace(" ", "\t"), full_name=PAYLOAD)
    poisoner = Poisoner(session, victim)
    for view in views(app):
        mapper: Any = inspect(view.model)
        for table in (mapper.local_table, *(one.mapper.local_table for one in mapper.relationships)):
            await poisoner.row(table)
    await session.commit()
    session.expire_all()
    shown = 0
    for view in views(app):
        mapper = inspect(view.model)
        row = await poisoner.row(mapper.local_table)
        for page, says in texts_of(view, row):
            await look(f"{view.identity}/{page}", says=says)
            shown += says
        for search in (PAYLOAD, SHORT, "onerror"):
            await look(f"{view.identity}/list", params={"search": search})
        await look_at_forms(root, look, view, row["id"])
        for name in (*view.actions, *app.state.registry.record_actions.get(view.identity, {})):
            await look(f"{view.identity}/action/{name}?pk={row['id']}", data={"query": f"search={PAYLOAD}"})
    assert shown >= 4
    for page in ("search", "account", *(["second-factor"] if "two_factor" in FEATURES else [])):
        await look(page, params={"search": PAYLOAD}, says=page == "search")
    await look("search", params={"search": "onerror"}, says=True)


async def test_ones_own_pages_show_ones_own_data_and_run_none_of_it(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    me = await make_user("staff", full_name=PAYLOAD, email=f"{PAYLOAD}@example.com".replace(" ", "\t"))
    mine = (await session.exec(select(UserSession).where(col(UserSession.user_id) == me.id))).one()
    mine.user_agent = mine.address = mine.method = PAYLOAD
    session.add(mine)
    await session.commit()
    browser = await console(me.email)
    for page in ("", "account", "search"):
        text = (await browser.get(f"/admin/{page}")).text
        assert RAW.findall(text) == []
        assert "<img src=x" in html.unescape(text).replace("\t", " ")  # in the menu, which says who is signed in


MESSAGES = {
    "script": urlsafe_b64encode(PAYLOAD.encode()).decode(),
    "long": urlsafe_b64encode(PAYLOAD.encode() * 300).decode(),
    "no base64": "%%%<img src=x>",
    "cut": "YQ",
    "no text": urlsafe_b64encode(b"\xff\xfe\x00").decode(),
    "controls": urlsafe_b64encode("\x00\u202e\ud7ff".encode()).decode(),
    "beyond ASCII": "\xe9\xe9",
}


@pytest.mark.parametrize("message", MESSAGES)
async def test_a_message_that_somebody_planted_is_text_at_most(root: httpx2.AsyncClient, message: str) -> None:
    token = root.cookies["console_session"]
    cookie = f"console_session={token}; console_message={MESSAGES[message]}".encode("latin-1")
    for page in ("", "user/list", "account"):
        answer = await root.get(f"/admin/{page}", headers={b"Cookie": cookie})
        assert answer.status_code == 200
        assert "<img src=x" not in answer.text
        assert answer.text.count("onerror") <= 20  # no more than the first few hundred characters of it


@pytest.mark.skipif("security_headers" not in FEATURES, reason="comes with security_headers")
async def test_every_answer_forbids_framing_and_foreign_scripts(app: FastAPI, root: httpx2.AsyncClient) -> None:
    asked = [("GET", "/admin/nonsense"), ("GET", "/admin/user/details/0"), ("GET", "/admin/user/action/delete")]
    asked += [("GET", "/admin/statics/console.css"), ("GET", "/admin/user/list?page=abc"), ("POST", "/admin/user/list")]
    asked += [(method, address) for address, methods in routes_of(app) for method in methods]
    foreign, stranger = {"Origin": EVIL, "Sec-Fetch-Site": "cross-site"}, {"Cookie": "console_session=x"}
    statuses = set()
    for more in ({}, foreign, stranger):
        for method, address in asked:
            if address.endswith("/logout"):
                continue
            answer = await root.request(method, address, headers=more)
            policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
            assert policy["frame-ancestors"] == "'none'", address
            assert (policy["default-src"], policy["object-src"], policy["base-uri"]) == ("'self'", "'none'", "'none'")
            assert policy["form-action"] == "'self'"
            assert "unsafe" not in answer.headers["content-security-policy"]
            assert answer.headers["x-frame-options"] == "DENY"
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] in {"same-origin", "no-referrer"}
            statuses.add(answer.status_code)
    assert {200, 302, 400, 403, 404, 405} <= statuses


@pytest.mark.browser
async def test_in_a_browser_nothing_of_it_runs(fresh_server: str, page: Any) -> None:
    payload = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    async with httpx2.AsyncClient(base_url=fresh_server, headers={"User-Agent": payload}) as attacker:
        account = {"email": "eve@example.com", "password": NEW_PASSWORD, "full_name": payload}
        assert (await attacker.post("/api/v1/auth/signup", json=account)).is_success
        form = {"username": account["email"], "password": NEW_PASSWORD}
        assert (await attacker.post("/api/v1/auth/token", data=form)).is_success
    ran: list[str] = []

    async def dismiss(dialog: Any) -> None:
        ran.append(dialog.message)
        await dialog.dismiss()

    page.on("dialog", dismiss)
    page.on("console", lambda message: ran.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: ran.append(str(error)))
    await page.add_init_script(ON_VIOLATION)
    await page.goto(f"{fresh_server}/admin/login")
    await page.get_by_label("E-mail address").fill("admin@example.com")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Console").wait_for()
    shown = ["user/list", "user/details/2", "user/edit/2", "user/list?search=onerror", "search?search=onerror"]
    shown += [
        "user-session/list",
        *(["audit-entry/list", "audit-entry/list?search=eve"] if "audit" in FEATURES else []),
    ]
    for address in shown:
        await page.goto(f"{fresh_server}/admin/{address}", wait_until="networkidle")
        if not address.startswith("audit"):
            text = await page.evaluate(
                "document.body.innerText + [...document.querySelectorAll('input, textarea')].map(it => it.value).join()"
            )
            assert "<img src=x onerror=alert(1)>" in text or address.startswith("search"), address
        assert await page.locator("img[src='x']").count() == 0
        assert await page.locator("script:not([src])").count() == 0
    await page.goto(f"{fresh_server}/admin/user/details/2")
    await page.get_by_role("button", name="Deactivate", exact=True).click()
    await page.get_by_role("button", name="Deactivate", exact=True).last.click()
    await page.get_by_text("1 user deactivated.").wait_for()
    assert ran == []
