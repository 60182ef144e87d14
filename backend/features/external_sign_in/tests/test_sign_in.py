"""Sign-in at an issuer that others wrote: the way there and back, and which account it opens."""

import time
from collections.abc import Callable

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.errors import SecondFactorRequired
from backend.core.events import Event, Handler, SecurityEvent
from backend.core.models import utc_now
from backend.features.external_sign_in.models import ExternalIdentity
from backend.features.external_sign_in.tests.browser import (
    COOKIE,
    EXTERNAL,
    come_in,
    consent,
    parameters,
    start,
    tell,
)
from backend.features.users.events import IdentityProven
from backend.features.users.models import User
from backend.testing import BASE_URL, PASSWORD, MakeUser, new_client

AUTH = "/api/v1/auth"
Environment = Callable[..., None]
Listen = Callable[[type[Event], Handler], None]


@pytest.fixture
async def ada(mock: str) -> str:
    """Somebody whose address the issuer has verified."""
    await tell(mock, "ada", email="Ada@example.com", email_verified=True, name="Ada Lovelace")
    return "ada"


async def me(browser: httpx2.AsyncClient, answer: httpx2.Response) -> httpx2.Response:
    assert answer.status_code == 200, answer.text
    token = answer.json()["access_token"]
    return await browser.get(f"{AUTH}/me", headers={"Authorization": f"Bearer {token}"})


def error(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def identities(session: AsyncSession) -> list[ExternalIdentity]:
    return list((await session.exec(select(ExternalIdentity))).all())


async def test_somebody_new_gets_an_account_that_no_password_opens(client: httpx2.AsyncClient, ada: str) -> None:
    answer = await come_in(client, ada)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json()["refresh_token"]
    first = (await me(client, answer)).json()
    assert (first["email"], first["full_name"], first["email_verified"]) == ("ada@example.com", "Ada Lovelace", True)
    for password in (PASSWORD, "!"):
        refused = await client.post(f"{AUTH}/token", data={"username": "ada@example.com", "password": password})
        assert refused.status_code == 401
    assert (await me(client, await come_in(client, ada))).json()["id"] == first["id"]


async def test_the_session_says_by_whom(client: httpx2.AsyncClient, ada: str) -> None:
    token = (await come_in(client, ada)).json()["access_token"]
    answer = await client.get(f"{AUTH}/sessions", headers={"Authorization": f"Bearer {token}"})
    assert [one["method"] for one in answer.json()] == ["oidc"]


async def test_the_refresh_token_is_an_ordinary_one(client: httpx2.AsyncClient, ada: str) -> None:
    token = (await come_in(client, ada)).json()["refresh_token"]
    assert (await client.post(f"{AUTH}/refresh", json={"refresh_token": token})).status_code == 200


async def test_a_page_goes_on_to_where_it_asked_with_the_refresh_by_a_cookie(
    client: httpx2.AsyncClient, ada: str
) -> None:
    answer = await come_in(client, ada, next="/profile?tab=1#top")
    assert (answer.status_code, answer.headers["location"]) == (303, "/profile?tab=1#top")
    assert "HttpOnly" in next(one for one in answer.headers.get_list("set-cookie") if one.startswith("refresh_token="))
    refreshed = await client.post(f"{AUTH}/refresh", headers={"Sec-Fetch-Site": "same-origin"})
    assert (await me(client, refreshed)).json()["email"] == "ada@example.com"


@pytest.mark.parametrize(
    "elsewhere",
    [
        "//evil.example",
        "\\\\evil.example",
        "/\\evil.example",
        "https:evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "evil.example",
        "/\t/evil.example",
        "/a\\b",
        "/a\r\nSet-Cookie: x=1",
        "/" + "a" * 500,
    ],
)
async def test_nobody_is_sent_to_another_site(
    client: httpx2.AsyncClient, as_user: httpx2.AsyncClient, mock: str, elsewhere: str
) -> None:
    assert error(await client.get(f"{EXTERNAL}/oidc/start", params={"next": elsewhere})) == (422, "invalid")
    assert error(await as_user.post(f"{EXTERNAL}/oidc/link", json={"next": elsewhere})) == (422, "invalid")


async def test_who_says_no_over_there_is_told_so(client: httpx2.AsyncClient, ada: str) -> None:
    answer = await client.get(await consent(await start(client), ada, deny=True) + f"&state={'x' * 43}")
    assert error(answer) == (400, "sign_in_not_started_here")
    url = await start(client)
    answer = await client.get(f"{EXTERNAL}/oidc/callback?error=access_denied&state={parameters(url)['state']}")
    assert error(answer) == (401, "provider_refused")
    assert answer.json()["error"]["details"] == {"error": "access_denied"}
    assert COOKIE not in client.cookies


@pytest.mark.parametrize(
    ("given", "status", "shown"),
    [
        ("<script>", 401, {"error": "unknown"}),
        ("", 401, {"error": "no_code"}),
        ("temporarily_unavailable", 503, None),
        ("invalid_scope", 503, None),
    ],
)
async def test_every_error_of_the_issuer_has_an_answer(
    client: httpx2.AsyncClient, mock: str, given: str, status: int, shown: object
) -> None:
    state = parameters(await start(client))["state"]
    answer = await client.get(f"{EXTERNAL}/oidc/callback", params={"error": given, "state": state})
    assert (answer.status_code, answer.json()["error"].get("details")) == (status, shown)


async def test_a_return_is_good_once(client: httpx2.AsyncClient, ada: str) -> None:
    url = await start(client)
    cookie, callback = client.cookies[COOKIE], await consent(url, ada)
    assert (await client.get(callback)).status_code == 200
    assert error(await client.get(callback)) == (400, "sign_in_not_started_here")
    again = await client.get(callback, headers={"Cookie": f"{COOKIE}={cookie}"})
    assert error(again) == (401, "provider_refused")


async def test_a_return_belongs_to_the_browser_that_began(app: FastAPI, client: httpx2.AsyncClient, ada: str) -> None:
    callback = await consent(await start(client), ada)
    async with new_client(app) as other:
        assert error(await other.get(callback)) == (400, "sign_in_not_started_here")
        await start(other)
        assert error(await other.get(callback)) == (400, "sign_in_not_started_here")
    assert (await client.get(callback)).status_code == 200


async def test_the_cookie_is_kept_from_scripts_and_cannot_be_read_or_forged(
    client: httpx2.AsyncClient, mock: str
) -> None:
    answer = await client.get(f"{EXTERNAL}/oidc/start")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Max-Age=600" in cookie
    asked = parameters(answer.headers["location"])
    for forged in ("nonsense", "a.b.c.d.e", client.cookies[COOKIE][:-2] + "xx", "é"):
        for_it = {b"Cookie": f"{COOKIE}={forged}".encode()}
        refused = await client.get(f"{EXTERNAL}/oidc/callback?code=x&state={asked['state']}", headers=for_it)
        assert error(refused) == (400, "sign_in_not_started_here")
    assert error(await client.get(f"{EXTERNAL}/oidc/callback?code=x&state=%ff")) == (400, "sign_in_not_started_here")


async def test_an_attempt_ends_after_ten_minutes(
    client: httpx2.AsyncClient, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback, later = await consent(await start(client), ada), time.time() + 601
    kept = {"Cookie": f"{COOKIE}={client.cookies[COOKIE]}"}  # by a client that does not look at Max-Age
    monkeypatch.setattr(time, "time", lambda: later)
    assert error(await client.get(callback, headers=kept)) == (400, "sign_in_not_started_here")


async def test_a_new_secret_key_does_not_end_what_was_begun_with_the_one_before(
    app: FastAPI, client: httpx2.AsyncClient, ada: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback, settings = await consent(await start(client), ada), app.state.settings
    new = {"secret_key": SecretStr("n" * 32), "previous_secret_keys": (settings.security.secret_key,)}
    security = settings.security.model_copy(update=new)
    monkeypatch.setitem(app.state._state, "settings", settings.model_copy(update={"security": security}))
    assert (await client.get(callback)).status_code == 200


async def test_an_attempt_at_one_provider_does_not_end_at_another(
    client: httpx2.AsyncClient, ada: str, environment: Environment
) -> None:
    callback = await consent(await start(client), ada)
    environment(EXTERNAL_SIGN_IN__GITHUB_CLIENT_ID="another")
    refused = await client.get(callback.replace("/oidc/", "/github/"))
    assert error(refused) == (400, "sign_in_not_started_here")


async def test_an_account_whose_address_both_sides_have_verified_is_linked(
    client: httpx2.AsyncClient, make_user: MakeUser, ada: str, session: AsyncSession, listen: Listen
) -> None:
    seen: list[SecurityEvent] = []

    async def note(_session: AsyncSession, event: SecurityEvent) -> None:
        seen.append(event)

    listen(SecurityEvent, note)
    user = await make_user(email="ada@example.com", email_verified_at=utc_now())
    for _ in range(2):
        assert (await me(client, await come_in(client, ada))).json()["id"] == user.id
    assert [(one.user_id, one.subject, one.email) for one in await identities(session)] == [
        (user.id, "ada", "ada@example.com")
    ]
    assert [one.action for one in seen] == ["identity.linked", "sign_in.succeeded", "sign_in.succeeded"]
    assert seen[0].details() == {"provider": "oidc", "email": "ada@example.com"}


async def test_the_identity_opens_the_account_whatever_becomes_of_the_addresses(
    client: httpx2.AsyncClient, mock: str, ada: str, environment: Environment
) -> None:
    before = (await me(client, await come_in(client, ada))).json()["id"]
    await tell(mock, "ada", email="countess@example.com", email_verified=False)
    environment(USERS__SIGNUP_OPEN="false")
    assert (await me(client, await come_in(client, ada))).json()["id"] == before


async def test_an_account_that_somebody_made_with_my_address_is_not_linked(
    client: httpx2.AsyncClient, make_user: MakeUser, ada: str, session: AsyncSession
) -> None:
    await make_user(email="ada@example.com")
    answer = await come_in(client, ada)
    assert error(answer) == (409, "account_not_verified")
    assert "password" in answer.json()["error"]["message"]
    assert await identities(session) == []


@pytest.mark.parametrize("verified", [False, None, "false", 1, "yes"])
async def test_an_address_that_the_issuer_has_not_verified_opens_nothing(
    client: httpx2.AsyncClient, make_user: MakeUser, mock: str, session: AsyncSession, verified: object
) -> None:
    await make_user(email="ada@example.com", email_verified_at=utc_now())
    for email in ("ada@example.com", "new@example.com"):
        await tell(mock, "mallory", email=email, email_verified=verified)
        assert error(await come_in(client, "mallory")) == (403, "email_not_verified")
    await tell(mock, "mallory", email="no address", email_verified=True)
    assert error(await come_in(client, "mallory")) == (403, "email_not_verified")
    assert await identities(session) == []


async def test_nobody_new_comes_in_while_sign_up_is_closed(
    client: httpx2.AsyncClient, ada: str, environment: Environment, session: AsyncSession
) -> None:
    environment(USERS__SIGNUP_OPEN="false")
    assert error(await come_in(client, ada)) == (403, "forbidden")
    assert (await session.exec(select(User))).all() == []


async def test_a_deactivated_account_stays_closed(
    client: httpx2.AsyncClient, ada: str, session: AsyncSession, listen: Listen
) -> None:
    seen: list[SecurityEvent] = []

    async def note(_session: AsyncSession, event: SecurityEvent) -> None:
        seen.append(event)

    await come_in(client, ada)
    user = (await session.exec(select(User))).one()
    user.is_active = False
    session.add(user)
    await session.commit()
    listen(SecurityEvent, note)
    assert error(await come_in(client, ada)) == (401, "unauthorized")
    assert [one.action for one in seen] == ["sign_in.failed"]


async def test_a_second_factor_is_asked_for_here_too(
    client: httpx2.AsyncClient, make_user: MakeUser, ada: str, session: AsyncSession, listen: Listen
) -> None:
    async def ask(_session: AsyncSession, event: IdentityProven) -> None:
        if event.code != "123456":
            raise SecondFactorRequired

    listen(IdentityProven, ask)
    await make_user(email="ada@example.com", email_verified_at=utc_now())
    answer = await come_in(client, ada, next="/profile")
    back, _, shown = answer.headers["location"].partition("#second_factor=")
    assert (answer.status_code, back) == (303, "/profile")
    answer = await come_in(client, ada)
    assert error(answer) == (401, "second_factor_required")
    assert await identities(session) == []
    pending = answer.json()["error"]["details"]["pending"]
    assert shown != pending
    done = await client.post(f"{AUTH}/second-factor", json={"pending": pending, "code": "123456"})
    assert (await me(client, done)).json()["email"] == "ada@example.com"


async def test_providers_are_listed_once_they_have_a_client(
    client: httpx2.AsyncClient, environment: Environment
) -> None:
    assert (await client.get(EXTERNAL)).json() == []
    assert error(await client.get(f"{EXTERNAL}/google/start")) == (404, "not_found")
    environment(EXTERNAL_SIGN_IN__GOOGLE_CLIENT_ID="g", EXTERNAL_SIGN_IN__GITHUB_CLIENT_ID="h")
    assert (await client.get(EXTERNAL)).json() == [
        {"name": "google", "label": "Google", "start_url": f"{EXTERNAL}/google/start"},
        {"name": "github", "label": "GitHub", "start_url": f"{EXTERNAL}/github/start"},
    ]


async def test_the_way_back_is_the_apps_address(client: httpx2.AsyncClient, mock: str) -> None:
    asked = parameters(await start(client))
    assert asked["redirect_uri"] == f"{BASE_URL}{EXTERNAL}/oidc/callback"
    from_v2 = await client.get(f"{EXTERNAL.replace('v1', 'v2')}/oidc/start")
    assert parameters(from_v2.headers["location"])["redirect_uri"] == asked["redirect_uri"]
