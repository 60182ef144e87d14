"""Acting as somebody else: who may, what it opens and what it does not, when it ends, and whose names are on it."""

import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from jose import jwt
from sqlmodel import col, delete, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core import logging as our_logging
from backend.core.auth import CONSOLE_COOKIE
from backend.core.config import Settings
from backend.core.models import utc_now
from backend.features import FEATURES
from backend.features.impersonation.models import Impersonation
from backend.features.users.events import PermissionsAsked
from backend.features.users.models import RefreshToken, User, UserSession
from backend.testing import PASSWORD, ClientFor, Console, Mailbox, MakeUser, act, new_client, text_of

API = "/api/v1"
ME = f"{API}/auth/me"
ACTION = "/admin/user/action/impersonate"
TOKEN = re.compile(r"<code[^>]*>([\w-]+\.[\w-]+\.[\w-]+)</code>")
REASON = "Ticket 4711"  # what `act` says

Statements = Callable[[], AbstractContextManager[list[str]]]
Acting = Callable[[httpx2.AsyncClient, User], Any]
without = pytest.mark.skipif


def token_in(page: httpx2.Response) -> str:
    found = TOKEN.search(page.text)
    assert page.status_code == 200, page.text
    assert found, page.text
    return found[1]


@pytest.fixture
async def acting(app: FastAPI) -> AsyncIterator[Acting]:
    """`await acting(browser, user)`: who is signed in there acts as that person; a client with the token."""
    async with AsyncExitStack() as stack:

        async def begin(browser: httpx2.AsyncClient, user: User) -> httpx2.AsyncClient:
            token = token_in(await act(browser, "user", "impersonate", user.id))
            client = new_client(app, headers={"Authorization": f"Bearer {token}"})
            return await stack.enter_async_context(client)

        yield begin


@pytest.fixture
def everybody_may(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The permission, without the rank that holds it."""

    async def permit(_session: AsyncSession, asked: PermissionsAsked) -> None:
        asked.held.add("users:impersonate")

    info = app.state.database.info
    listening = (*info["handlers"].get(PermissionsAsked, ()), permit)
    monkeypatch.setitem(info, "handlers", {**info["handlers"], PermissionsAsked: listening})
    yield
    app.state.principals.forget_all()


# --- who may -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "account", "status"),
    [
        ("admin", "user", 200),
        ("admin", "staff", 200),
        ("admin", "admin", 200),
        ("staff", "user", 403),
        ("staff", "staff", 403),
        ("staff", "admin", 403),
    ],
)
async def test_administrators_may(
    console: Console, make_user: MakeUser, caller: str, account: str, status: int
) -> None:
    browser = await console((await make_user(caller)).email)
    assert (await act(browser, "user", "impersonate", (await make_user(account)).id)).status_code == status


@pytest.mark.parametrize(("account", "status"), [("user", 200), ("staff", 200), ("admin", 403)])
@pytest.mark.usefixtures("everybody_may")
async def test_the_permission_reaches_nobody_who_may_do_more(
    console: Console, make_user: MakeUser, account: str, status: int
) -> None:
    browser = await console((await make_user("staff")).email)
    answer = await act(browser, "user", "impersonate", (await make_user(account)).id)
    assert answer.status_code == status
    assert ("This account may do more than you" in answer.text) == (status == 403)


async def test_not_oneself_nor_who_is_deactivated_nor_two_at_once(console: Console, make_user: MakeUser) -> None:
    admin, user, gone = await make_user("admin"), await make_user(), await make_user(is_active=False)
    browser = await console(admin.email)
    assert (await act(browser, "user", "impersonate", admin.id)).status_code == 403
    assert (await act(browser, "user", "impersonate", gone.id)).status_code == 409
    assert (await act(browser, "user", "impersonate", user.id, admin.id)).status_code == 400


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201, "a\x00b"])
async def test_a_reason_has_to_be_given(
    console: Console, make_user: MakeUser, session: AsyncSession, reason: str
) -> None:
    browser, user = await console((await make_user("admin")).email), await make_user()
    answer = await browser.post(ACTION, data={"pks": str(user.id), "confirmed": "1", "reason": reason})
    assert (answer.status_code, "Give a reason" in answer.text) == (422, True)
    assert not (await session.exec(select(Impersonation))).all()


async def test_the_button_is_on_the_record_and_not_above_the_list(console: Console, make_user: MakeUser) -> None:
    browser, user = await console((await make_user("admin")).email), await make_user()
    assert ACTION in (await browser.get(f"/admin/user/details/{user.id}")).text
    assert ACTION not in (await browser.get("/admin/user/list")).text
    asked = await browser.post(f"{ACTION}?pk={user.id}")
    assert 'name="reason"' in asked.text
    assert "eyJ" not in asked.text


async def test_the_password_is_asked_for_some_time_after_signing_in(
    console: Console, make_user: MakeUser, session: AsyncSession, app: FastAPI
) -> None:
    admin, user = await make_user("admin"), await make_user()
    browser = await console(admin.email)
    long_ago = utc_now() - timedelta(hours=1)
    await session.exec(update(UserSession).where(col(UserSession.user_id) == admin.id).values(created_at=long_ago))
    await session.commit()
    app.state.principals.forget_all()
    form = {"pks": str(user.id), "confirmed": "1", "reason": "Because"}
    refused = await browser.post(ACTION, data=form | {"password": "wrong"})
    assert (refused.status_code, 'value="Because"' in refused.text) == (403, True)
    assert token_in(await browser.post(ACTION, data=form | {"password": PASSWORD}))


# --- what it opens -------------------------------------------------------------------------------------------------


async def test_it_does_what_the_account_may_and_is_shown_once(
    app: FastAPI, console: Console, make_user: MakeUser, client_for: ClientFor, acting: Acting
) -> None:
    admin, user = await make_user("admin"), await make_user("user")
    page = await act(await console(admin.email), "user", "impersonate", user.id)
    assert "no-store" in page.headers["Cache-Control"]
    token = token_in(page)
    assert f'curl -H "Authorization: Bearer {token}" http://localhost{ME}<' in page.text
    claims = jwt.get_unverified_claims(token)
    assert claims["act"] == {"sub": str(admin.id), "email": admin.email}
    assert claims["exp"] - claims["iat"] == pytest.approx(15 * 60, abs=2)
    async with new_client(app, headers={"Authorization": f"Bearer {token}"}) as client:
        seen = (await client.get(ME)).json()
        assert seen == (await client_for(user).get(ME)).json()
        changed = await client.patch(ME, json={"full_name": "Ada"})
        assert (changed.status_code, changed.json()["full_name"]) == (200, "Ada")


async def test_what_the_account_gets_to_hold_meanwhile_is_not_in_it(
    console: Console, make_user: MakeUser, acting: Acting, request: pytest.FixtureRequest
) -> None:
    user = await make_user("user")
    client = await acting(await console((await make_user("admin")).email), user)
    request.getfixturevalue("everybody_may")
    assert "users:impersonate" not in (await client.get(ME)).json()["permissions"]


REFUSED = [
    ("users", "POST", "/auth/password", {"current_password": PASSWORD, "new_password": "a staple of batteries"}),
    ("users", "GET", "/auth/sessions", None),
    ("users", "POST", "/auth/logout-everywhere", None),
    ("users", "PATCH", "/users/{id}", {"email": "other@example.com"}),
    ("users", "PATCH", "/users/{id}", {"password": "a staple of batteries"}),
    ("users", "DELETE", "/users/{id}", None),
    ("users", "DELETE", "/users/{other}", None),
    ("users", "DELETE", "/users/{id}/sessions", None),
    ("users", "POST", "/users", {"email": "new@example.com", "password": "a staple of batteries", "role": "admin"}),
    ("two_factor", "POST", "/auth/totp", {"password": PASSWORD}),
    ("two_factor", "DELETE", "/users/{other}/totp", None),
    ("api_keys", "POST", "/api-keys", {"name": "mine", "scopes": ["users:read"]}),
    ("api_keys", "GET", "/api-keys", None),
    ("external_sign_in", "GET", "/auth/identities", None),
    ("external_sign_in", "POST", "/auth/external/google/link", None),
]


@pytest.mark.parametrize(("feature", "method", "path", "body"), REFUSED)
async def test_it_opens_no_other_way_in_whoever_it_is(
    console: Console, make_user: MakeUser, acting: Acting, feature: str, method: str, path: str, body: Any
) -> None:
    if feature not in FEATURES:
        pytest.skip("a feature that is not there")
    other, user = await make_user("admin"), await make_user()
    client = await acting(await console((await make_user("admin")).email), other)
    answer = await client.request(method, API + path.format(id=other.id, other=user.id), json=body)
    assert answer.status_code == 403, answer.text
    assert "this is for them alone" in answer.json()["error"]["message"]


async def test_it_is_no_way_into_the_console_and_cannot_be_renewed(
    app: FastAPI, console: Console, make_user: MakeUser, session: AsyncSession, acting: Acting
) -> None:
    other = await make_user("admin")
    client = await acting(await console((await make_user("admin")).email), other)
    token = client.headers["Authorization"].removeprefix("Bearer ")
    async with new_client(app, cookies={CONSOLE_COOKIE: token}) as browser:
        assert (await browser.get("/admin/")).status_code in (302, 303)
    opened = await _session_of(session, other)
    assert opened.token_hash is None
    renewals = select(RefreshToken).where(RefreshToken.session_id == opened.id)
    assert (await session.exec(renewals)).all() == []


async def test_a_caller_known_already_costs_no_sql(
    console: Console, make_user: MakeUser, acting: Acting, statements: Statements
) -> None:
    client = await acting(await console((await make_user("admin")).email), await make_user())
    await client.get(ME)
    with statements() as seen:
        assert (await client.get(ME)).status_code == 200
    assert seen == []


async def test_kept_answers_are_not_shared_with_the_account(
    console: Console, make_user: MakeUser, client_for: ClientFor, acting: Acting
) -> None:
    """Staff see what they may do in the console in their own, which a token for the API does not say."""
    staff = await make_user("staff")
    client = await acting(await console((await make_user("admin")).email), staff)
    mine = (await client_for(staff).get(ME)).json()["permissions"]
    theirs = (await client.get(ME)).json()["permissions"]
    assert set(theirs) < set(mine)
    assert (await client_for(staff).get(ME)).json()["permissions"] == mine


@without("idempotency" not in FEATURES, reason="is about requests that are repeated")
async def test_a_key_of_theirs_does_not_give_away_the_answer_to_them(
    console: Console, make_user: MakeUser, client_for: ClientFor, acting: Acting
) -> None:
    user = await make_user()
    client = await acting(await console((await make_user("admin")).email), user)
    same: dict[str, Any] = {"json": {"full_name": "Ada"}, "headers": {"Idempotency-Key": "once"}}
    assert (await client_for(user).patch(ME, **same)).status_code == 200
    assert (await client.patch(ME, **same)).status_code == 422


# --- when it ends --------------------------------------------------------------------------------------------------


async def _session_of(session: AsyncSession, user: User) -> UserSession:
    mine = (UserSession.user_id == user.id, UserSession.method == "impersonation")
    return (await session.exec(select(UserSession).where(*mine))).one()


ENDS = [
    "the person ends it",
    "its session is ended in the console",
    "the administrator signs out",
    "the administrator is signed out everywhere",
    "the administrator is deactivated",
    "the administrator gets another rank",
    "the administrator is deleted",
    "the account is deactivated",
    "the account gets another rank",
    "its time is over",
]


@pytest.mark.parametrize("how", ENDS)
async def test_it_ends_at_once_when(
    app: FastAPI,
    console: Console,
    make_user: MakeUser,
    client_for: ClientFor,
    acting: Acting,
    session: AsyncSession,
    how: str,
) -> None:
    admin, user, boss = await make_user("admin"), await make_user(), client_for(await make_user("admin"))
    browser = await console(admin.email)
    client, bystander = await acting(browser, user), await acting(browser, await make_user())
    assert (await client.get(ME)).status_code == 200
    opened = await _session_of(session, user)
    if how == "the person ends it":
        answer = await client_for(user).delete(f"{API}/auth/sessions/{opened.id}")
    elif how == "its session is ended in the console":
        answer = await act(browser, "user-session", "delete", opened.id)
    elif how == "the administrator signs out":
        answer = await browser.post("/admin/logout")
    elif how == "its time is over":
        past = utc_now() - timedelta(seconds=1)
        await session.exec(update(UserSession).where(col(UserSession.id) == opened.id).values(expires_at=past))
        await session.commit()
        app.state.principals.forget_all()
        answer = await boss.get(ME)
    else:
        who = admin if "the administrator" in how else user
        if how.endswith("everywhere"):
            answer = await boss.delete(f"{API}/users/{who.id}/sessions")
        elif how.endswith("deactivated"):
            answer = await boss.patch(f"{API}/users/{who.id}", json={"is_active": False})
        elif how.endswith("rank"):
            answer = await boss.patch(f"{API}/users/{who.id}", json={"role": "staff"})
        else:
            answer = await boss.delete(f"{API}/users/{who.id}")
    assert answer.status_code < 400, answer.text
    assert (await client.get(ME)).status_code == 401
    spared = "the administrator" not in how
    assert (await bystander.get(ME)).status_code == (200 if spared else 401)


async def test_another_session_of_either_may_end_without_it(
    console: Console, make_user: MakeUser, client_for: ClientFor, acting: Acting, session: AsyncSession
) -> None:
    admin, user = await make_user("admin"), await make_user()
    client = await acting(await console(admin.email), user)
    assert (await client_for(user).post(f"{API}/auth/logout")).status_code == 204
    assert (await client_for(admin).post(f"{API}/auth/logout")).status_code == 204
    assert (await client.get(ME)).status_code == 200
    assert (await session.exec(select(Impersonation.user_id))).all() == [user.id]


async def test_it_does_not_begin_in_a_session_that_another_process_has_ended(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    admin, user = await make_user("admin"), await make_user()
    browser = await console(admin.email)
    assert (await browser.get("/admin/")).status_code == 200
    await session.exec(delete(UserSession).where(col(UserSession.user_id) == admin.id))
    await session.commit()
    assert (await act(browser, "user", "impersonate", user.id)).status_code == 401


async def test_its_length_is_a_setting(
    console: Console, make_user: MakeUser, session: AsyncSession, environment: Callable[..., None], acting: Acting
) -> None:
    environment(IMPERSONATION__MINUTES="2")
    user = await make_user()
    await acting(await console((await make_user("admin")).email), user)
    opened = await _session_of(session, user)
    assert opened.expires_at - opened.created_at <= timedelta(minutes=2)


async def test_what_is_over_is_forgotten_at_the_next(
    console: Console, make_user: MakeUser, session: AsyncSession, acting: Acting
) -> None:
    browser, first, second = await console((await make_user("admin")).email), await make_user(), await make_user()
    await acting(browser, first)
    await session.exec(update(Impersonation).values(expires_at=utc_now() - timedelta(seconds=1)))
    await session.commit()
    await acting(browser, second)
    assert (await session.exec(select(Impersonation.user_id))).all() == [second.id]


# --- who knows -----------------------------------------------------------------------------------------------------


async def test_the_person_sees_it_among_their_devices(
    console: Console, make_user: MakeUser, client_for: ClientFor, acting: Acting
) -> None:
    admin, user = await make_user("admin", full_name="Grace Hopper"), await make_user()
    await acting(await console(admin.email), user)
    devices = (await client_for(user).get(f"{API}/auth/sessions")).json()
    assert ("impersonation", "support: Grace Hopper", "") in [
        (one["method"], one["user_agent"], one["address"]) for one in devices
    ]


async def test_the_person_is_told_by_mail(
    console: Console, make_user: MakeUser, mailbox: Mailbox, environment: Callable[..., None], acting: Acting
) -> None:
    admin, user = await make_user("admin", full_name="Grace Hopper"), await make_user()
    browser = await console(admin.email)
    await acting(browser, user)
    [mail] = await mailbox.mails()
    assert (mail["To"], mail["Subject"]) == (user.email, "Support acts as you")
    assert "Grace Hopper" in text_of(mail)
    assert REASON in text_of(mail)
    environment(IMPERSONATION__NOTIFY="false")
    await acting(browser, user)
    assert await mailbox.mails() == []


async def test_a_refusal_is_not_mailed(console: Console, make_user: MakeUser, mailbox: Mailbox) -> None:
    admin = await make_user("admin")
    await act(await console(admin.email), "user", "impersonate", admin.id)
    assert await mailbox.mails() == []


@without("audit" not in FEATURES, reason="is about the audit log")
async def test_each_entry_of_the_log_names_both(
    console: Console, make_user: MakeUser, as_admin: httpx2.AsyncClient, acting: Acting
) -> None:
    admin, user = await make_user("admin"), await make_user()
    browser = await console(admin.email)
    client = await acting(browser, user)
    await client.patch(ME, json={"full_name": "Ada"})
    log = (await as_admin.get(f"{API}/audit", params={"impersonator_id": admin.id})).json()["items"]
    assert [(one["action"], one["actor_id"], one["impersonator_id"], one["via"]) for one in log] == [
        ("users.updated", user.id, admin.id, "impersonation")
    ]
    assert (log[0]["actor_name"], log[0]["impersonator_name"]) == (user.email, admin.email)
    both = f"{user.email}, impersonated by {admin.email}"
    for page in ("audit-entry/list", f"audit-entry/details/{log[0]['id']}", f"user/history/{user.id}", ""):
        assert both in (await browser.get(f"/admin/{page}")).text, page
    filtered = await browser.get(f"/admin/audit-entry/list?f_impersonator_id={admin.id}")
    assert (filtered.text.count("users.updated"), "impersonation.started" in filtered.text) == (1, False)


@without("audit" not in FEATURES, reason="is about the audit log")
async def test_start_and_end_are_in_the_log(
    console: Console, make_user: MakeUser, as_admin: httpx2.AsyncClient, acting: Acting, session: AsyncSession
) -> None:
    admin, user = await make_user("admin"), await make_user()
    browser = await console(admin.email)
    await acting(browser, user)
    opened = await _session_of(session, user)
    number, ends = opened.id, opened.expires_at
    await act(browser, "user-session", "delete", number)
    log = (await as_admin.get(f"{API}/audit", params={"action": "impersonation."})).json()["items"]
    assert [(one["action"], one["actor_id"], one["subject_id"], one["details"]) for one in log] == [
        ("impersonation.ended", admin.id, str(user.id), {"impersonator_id": admin.id}),
        (
            "impersonation.started",
            admin.id,
            str(user.id),
            {"session_id": number, "reason": REASON, "expires_at": ends.isoformat()},
        ),
    ]
    signed_in = await as_admin.get(f"{API}/audit", params={"action": "sign_in.succeeded", "subject_id": str(user.id)})
    assert signed_in.json()["items"] == []


@without("audit" not in FEATURES, reason="is about the audit log")
async def test_what_ran_out_is_not_told_as_ended(
    console: Console,
    make_user: MakeUser,
    client_for: ClientFor,
    as_admin: httpx2.AsyncClient,
    acting: Acting,
    session: AsyncSession,
) -> None:
    user = await make_user()
    await acting(await console((await make_user("admin")).email), user)
    await session.exec(update(Impersonation).values(expires_at=utc_now() - timedelta(seconds=1)))
    await session.delete(await _session_of(session, user))  # as is done once a day
    await session.commit()
    assert (await client_for(user).post(f"{API}/auth/logout")).status_code == 204
    log = (await as_admin.get(f"{API}/audit", params={"action": "impersonation.ended"})).json()["items"]
    assert log == []


@pytest.fixture
def json_lines(environment: Callable[..., None], app: FastAPI) -> Iterator[None]:
    environment(LOG__FORMAT="json", LOG__LEVEL="info")
    our_logging.configure(Settings())
    yield
    our_logging.configure(app.state.settings)


@without("access_log" not in FEATURES, reason="is about its line")
@pytest.mark.usefixtures("json_lines")
async def test_lines_of_the_log_name_both(
    console: Console, make_user: MakeUser, client_for: ClientFor, acting: Acting, capsys: pytest.CaptureFixture[str]
) -> None:
    admin, user = await make_user("admin"), await make_user()
    client = await acting(await console(admin.email), user)
    capsys.readouterr()
    await client.get(ME)
    await client_for(user).get(ME)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(one["user"], one.get("impersonated_by")) for one in lines if one["event"] == "request"] == [
        (user.id, admin.id),
        (user.id, None),
    ]
