"""Linking an identity to one's account, unlinking it, and the console's view of both."""

from collections.abc import Callable
from datetime import timedelta

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.config import Settings
from backend.core.events import Event, Handler, SecurityEvent, emit
from backend.core.models import utc_now
from backend.features.external_sign_in.models import ExternalIdentity
from backend.features.external_sign_in.settings import ExternalSignInSettings
from backend.features.external_sign_in.tests.browser import COOKIE, EXTERNAL, come_in, consent, parameters
from backend.features.external_sign_in.tests.local_issuer import CLIENT_ID, Issuer
from backend.features.external_sign_in.tests.test_sign_in import error, identities, me
from backend.features.users.events import AccountReclaimed
from backend.features.users.models import UserSession
from backend.testing import PASSWORD, ClientFor, Console, MakeUser, act, new_client, token_for

IDENTITIES = "/api/v1/auth/identities"
Listen = Callable[[type[Event], Handler], None]


async def link(browser: httpx2.AsyncClient, **body: str) -> httpx2.Response:
    """Ask for it while signed in, go there and back."""
    begun = await browser.post(f"{EXTERNAL}/oidc/link", json=body)
    assert begun.status_code == 200, begun.text
    return await browser.get(await consent(begun.json()["url"]))


async def signed_in(browser: httpx2.AsyncClient) -> httpx2.AsyncClient:
    """Come in by the issuer, and use the token from now on."""
    browser.headers["Authorization"] = f"Bearer {(await come_in(browser)).json()['access_token']}"
    return browser


async def test_a_linked_identity_opens_the_account_whatever_its_address(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor, issuer: Issuer
) -> None:
    user = await make_user()
    issuer.person["email_verified"] = False
    browser = client_for(user)
    for _ in range(2):
        linked = await link(browser)
        assert (linked.status_code, linked.json()["email"]) == (200, "ada@example.com")
    assert [one["provider"] for one in (await browser.get(IDENTITIES)).json()] == ["oidc"]
    assert (await me(client, await come_in(client))).json()["email"] == user.email


async def test_linking_goes_on_to_where_it_was_asked(as_user: httpx2.AsyncClient, issuer: Issuer) -> None:
    answer = await link(as_user, next="/profile")
    assert (answer.status_code, answer.headers["location"]) == (303, "/profile")
    assert "refresh_token" not in as_user.cookies
    assert COOKIE not in as_user.cookies


async def test_an_identity_belongs_to_one_account(
    as_user: httpx2.AsyncClient, as_staff: httpx2.AsyncClient, issuer: Issuer, session: AsyncSession
) -> None:
    await link(as_user)
    assert error(await link(as_staff)) == (409, "conflict")
    assert len(await identities(session)) == 1


async def test_nobody_links_their_identity_to_mine_by_sending_me_an_address(
    app: FastAPI, as_user: httpx2.AsyncClient, issuer: Issuer, session: AsyncSession
) -> None:
    url = (await as_user.post(f"{EXTERNAL}/oidc/link")).json()["url"]
    async with new_client(app) as other:
        assert error(await other.get(await consent(url))) == (400, "sign_in_not_started_here")
    assert await identities(session) == []


async def test_linking_needs_the_session_that_asked_for_it(
    make_user: MakeUser, client_for: ClientFor, issuer: Issuer, session: AsyncSession
) -> None:
    browser = client_for(await make_user())
    callback = await consent((await browser.post(f"{EXTERNAL}/oidc/link")).json()["url"])
    await session.delete((await session.exec(select(UserSession))).one())
    await session.commit()
    assert error(await browser.get(callback)) == (401, "unauthorized")
    assert await identities(session) == []


async def test_a_stolen_token_neither_links_nor_unlinks_later(
    client: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession, issuer: Issuer
) -> None:
    form = {"username": (await make_user()).email, "password": PASSWORD}
    tokens = (await client.post("/api/v1/auth/token", data=form)).json()
    client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
    identity = (await link(client)).json()["id"]
    await session.exec(update(UserSession).values(created_at=utc_now() - timedelta(minutes=16)))
    await session.commit()
    refreshed = (await client.post("/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})).json()
    client.headers["Authorization"] = f"Bearer {refreshed['access_token']}"  # which makes no session younger
    for answer in (await client.post(f"{EXTERNAL}/oidc/link"), await client.delete(f"{IDENTITIES}/{identity}")):
        assert error(answer)[:2] == (403, "sign_in_again")
    assert len((await client.get(IDENTITIES)).json()) == 1


async def test_an_unlinked_identity_opens_nothing(
    client: httpx2.AsyncClient, as_user: httpx2.AsyncClient, issuer: Issuer, listen: Listen, session: AsyncSession
) -> None:
    issuer.person["email_verified"] = False
    identity = (await link(as_user)).json()["id"]
    seen: list[SecurityEvent] = []

    async def note(_session: AsyncSession, event: SecurityEvent) -> None:
        seen.append(event)

    listen(SecurityEvent, note)
    assert (await as_user.delete(f"{IDENTITIES}/{identity}")).status_code == 204
    assert [one.action for one in seen] == ["identity.unlinked"]
    assert (await as_user.delete(f"{IDENTITIES}/{identity}")).status_code == 404
    assert error(await come_in(client)) == (403, "email_not_verified")


async def test_the_only_way_in_stays(client: httpx2.AsyncClient, issuer: Issuer, session: AsyncSession) -> None:
    browser = await signed_in(client)
    (first,) = (await browser.get(IDENTITIES)).json()
    assert error(await browser.delete(f"{IDENTITIES}/{first['id']}")) == (409, "conflict")
    issuer.person["sub"] = "43"
    second = (await link(browser)).json()
    assert (await browser.delete(f"{IDENTITIES}/{first['id']}")).status_code == 204
    assert error(await browser.delete(f"{IDENTITIES}/{second['id']}")) == (409, "conflict")
    assert [one.id for one in await identities(session)] == [second["id"]]


async def test_nobody_unlinks_the_identities_of_others(
    as_user: httpx2.AsyncClient, as_admin: httpx2.AsyncClient, issuer: Issuer
) -> None:
    identity = (await link(as_user)).json()["id"]
    assert (await as_admin.get(IDENTITIES)).json() == []
    assert (await as_admin.delete(f"{IDENTITIES}/{identity}")).status_code == 404


async def test_an_account_takes_its_identities_along(
    app: FastAPI, make_user: MakeUser, as_admin: httpx2.AsyncClient, issuer: Issuer, session: AsyncSession
) -> None:
    user = await make_user()
    async with new_client(app, headers={"Authorization": f"Bearer {token_for(app, user)}"}) as browser:
        await link(browser)
    assert (await as_admin.delete(f"/api/v1/users/{user.id}")).status_code == 204
    assert await identities(session) == []


async def test_the_console_shows_identities_and_unlinks_them(
    console: Console, make_user: MakeUser, client_for: ClientFor, issuer: Issuer, session: AsyncSession
) -> None:
    admin, user = await make_user("admin"), await make_user()
    identity = (await link(client_for(user))).json()["id"]
    browser = await console(admin.email)
    listed = await browser.get("/admin/external-identity/list")
    assert "ada@example.com" in listed.text
    assert "/admin/external-identity/create" not in listed.text
    assert "42" in (await browser.get(f"/admin/external-identity/details/{identity}")).text
    assert (await act(browser, "external-identity", "delete", identity)).status_code == 303
    assert await identities(session) == []


async def test_the_console_too_leaves_the_only_way_in(
    console: Console, make_user: MakeUser, client: httpx2.AsyncClient, issuer: Issuer, session: AsyncSession
) -> None:
    await come_in(client)
    (identity,) = await identities(session)
    browser = await console((await make_user("admin")).email)
    refused = await act(browser, "external-identity", "delete", identity.id)
    assert refused.status_code == 409
    assert isinstance(await session.get(ExternalIdentity, identity.id), ExternalIdentity)


# --- settings ------------------------------------------------------------------------------------------------------


async def test_behind_a_proxy_the_way_back_is_the_public_address(
    make_app: Callable[..., FastAPI], issuer: Issuer
) -> None:
    app = make_app(API__PUBLIC_URL="https://app.example.com", ENVIRONMENT="staging")
    async with new_client(app) as browser:
        answer = await browser.get(f"{EXTERNAL}/oidc/start")
    back = parameters(answer.headers["location"])["redirect_uri"]
    assert back == f"https://app.example.com{EXTERNAL}/oidc/callback"
    assert "Secure" in answer.headers["set-cookie"]


def test_production_refuses_half_a_client() -> None:
    names = ("google", "github", "oidc")
    half = ExternalSignInSettings.model_validate({f"{name}_client_id": CLIENT_ID for name in names})
    offences = half.offences(Settings())
    assert [line.split()[0] for line in offences] == [
        *(f"EXTERNAL_SIGN_IN__{name.upper()}_CLIENT_ID" for name in names),
        "EXTERNAL_SIGN_IN__OIDC_ISSUER",
    ]
    whole = {f"{name}_client_{part}": "x" for name in names for part in ("id", "secret")}
    whole["oidc_issuer"] = "https://id.example.com"
    assert ExternalSignInSettings.model_validate(whole).offences(Settings()) == []


@pytest.mark.parametrize("wrong", [{"oidc_name": "github"}, {"oidc_name": "a/b"}, {"oidc_scopes": "email"}], ids=str)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ExternalSignInSettings.model_validate(wrong)


async def test_identities_go_when_the_account_is_reclaimed(
    make_user: MakeUser, client_for: ClientFor, issuer: Issuer, session: AsyncSession
) -> None:
    user = await make_user()
    browser = client_for(user)
    await link(browser)
    await emit(session, AccountReclaimed(user_id=user.id or 0))
    await session.commit()
    assert (await browser.get(IDENTITIES)).json() == []


@pytest.mark.parametrize("why", ["narrow", "long ago"])
async def test_a_stolen_token_links_nothing(
    app: FastAPI, client: httpx2.AsyncClient, make_user: MakeUser, issuer: Issuer, session: AsyncSession, why: str
) -> None:
    user = await make_user("staff")
    form = {"username": user.email, "password": PASSWORD} | ({"scope": "users:read"} if why == "narrow" else {})
    token = (await client.post("/api/v1/auth/token", data=form)).json()["access_token"]
    if why == "long ago":
        await session.exec(update(UserSession).values(created_at=utc_now() - timedelta(minutes=16)))
        await session.commit()
    answer = await client.post(f"{EXTERNAL}/oidc/link", headers={"Authorization": f"Bearer {token}"})
    assert error(answer) == (403, "forbidden" if why == "narrow" else "sign_in_again")
