"""Verifying an address, through HTTP and real mail."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from email.message import EmailMessage

import httpx2
import pytest
from sqlalchemy import update
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.config import Settings
from backend.core.models import utc_now
from backend.features.email_verification.settings import EmailVerificationSettings
from backend.features.users.models import OneTimeToken, User
from backend.testing import BASE_URL, PASSWORD, ClientFor, Mailbox, MakeUser, running_server, smtp_server, text_of

API = "/api/v1/auth"
ADA = "ada@example.com"
OUR_PAGE = {"Sec-Fetch-Site": "same-origin"}
Environment = Callable[..., None]


def token_in(mail: EmailMessage) -> str:
    [link] = re.findall(r"^http\S+$", text_of(mail), re.MULTILINE)
    assert link.startswith(f"{BASE_URL}/verify-email?token=")
    html = mail.get_body(("html",))
    assert html is not None
    assert link in html.get_content()
    return str(link.partition("token=")[2])


async def sign_up(client: httpx2.AsyncClient, email: str = ADA) -> None:
    answer = await client.post(f"{API}/signup", json={"email": email, "password": PASSWORD})
    assert answer.status_code == 201, answer.text


async def sign_in(client: httpx2.AsyncClient, password: str = PASSWORD) -> httpx2.Response:
    return await client.post(f"{API}/token", data={"username": ADA, "password": password})


async def verify(client: httpx2.AsyncClient, token: str) -> int:
    return (await client.post(f"{API}/verify-email", json={"token": token})).status_code


async def ask(client: httpx2.AsyncClient, mailbox: Mailbox, email: str) -> list[EmailMessage]:
    answer = await client.post(f"{API}/verify-email/request", json={"email": email})
    assert answer.status_code == 202
    assert answer.json() == {"message": "If this address is to be verified, a mail is on its way"}
    return await mailbox.mails()


async def is_verified(session: AsyncSession, email: str = ADA) -> bool:
    statement = select(User).where(User.email == email).execution_options(populate_existing=True)
    return (await session.exec(statement)).one().email_verified


async def age_the_tokens(session: AsyncSession, **earlier: object) -> None:
    await session.exec(update(OneTimeToken).values(**earlier))
    await session.commit()


async def test_a_new_account_gets_a_link_that_verifies_its_address_once(
    client: httpx2.AsyncClient, mailbox: Mailbox, session: AsyncSession
) -> None:
    await sign_up(client)
    [mail] = await mailbox.mails()
    assert mail["To"] == ADA
    token = token_in(mail)
    assert not await is_verified(session)
    assert await verify(client, token) == 204
    assert await is_verified(session)
    assert await verify(client, token) == 400


async def test_a_sign_up_that_fails_mails_nothing(client: httpx2.AsyncClient, mailbox: Mailbox) -> None:
    await sign_up(client)
    assert len(await mailbox.mails()) == 1
    answer = await client.post(f"{API}/signup", json={"email": ADA, "password": PASSWORD})
    assert answer.status_code == 409
    assert await mailbox.mails() == []


async def test_a_new_address_is_unverified_and_an_old_link_does_not_verify_it(
    client: httpx2.AsyncClient, as_admin: httpx2.AsyncClient, mailbox: Mailbox, session: AsyncSession
) -> None:
    await sign_up(client)
    [first] = await mailbox.mails()
    user = (await session.exec(select(User).where(User.email == ADA))).one()
    kept = (await session.exec(select(OneTimeToken.token_hash))).one()
    answer = await as_admin.patch(f"/api/v1/users/{user.id}", json={"email": "countess@example.com"})
    assert answer.status_code == 200
    [second] = await mailbox.mails()
    assert second["To"] == "countess@example.com"
    # put back what the second link replaced: it must not do even if it survives
    tomorrow = utc_now() + timedelta(days=1)
    session.add(
        OneTimeToken(user_id=user.id or 0, purpose="verify_email", subject=ADA, token_hash=kept, expires_at=tomorrow)
    )
    await session.commit()
    assert await verify(client, token_in(first)) == 400
    assert not await is_verified(session, "countess@example.com")
    assert await verify(client, token_in(second)) == 204


async def test_a_link_expires(client: httpx2.AsyncClient, mailbox: Mailbox, session: AsyncSession) -> None:
    await sign_up(client)
    [mail] = await mailbox.mails()
    await age_the_tokens(session, expires_at=utc_now())
    assert await verify(client, token_in(mail)) == 400


async def test_another_link_can_be_asked_for_once_a_minute(
    client: httpx2.AsyncClient, mailbox: Mailbox, session: AsyncSession
) -> None:
    await sign_up(client)
    [first] = await mailbox.mails()
    assert await ask(client, mailbox, ADA) == []
    await age_the_tokens(session, created_at=utc_now().replace(year=2000))
    [second] = await ask(client, mailbox, "ADA@example.com")
    assert second["To"] == ADA
    assert await ask(client, mailbox, ADA) == []
    assert await verify(client, token_in(first)) == 400
    assert await verify(client, token_in(second)) == 204


async def test_only_active_unverified_accounts_get_another_link(
    client: httpx2.AsyncClient, mailbox: Mailbox, make_user: MakeUser
) -> None:
    await make_user(email="waits@example.com")
    await make_user(email="gone@example.com", is_active=False)
    await make_user(email="done@example.com", email_verified_at=utc_now())
    for email in ("gone@example.com", "done@example.com", "nobody@example.com"):
        assert await ask(client, mailbox, email) == []
    assert len(await ask(client, mailbox, "waits@example.com")) == 1


@pytest.mark.usefixtures("idle_mailer")
async def test_the_answer_waits_for_nothing_that_depends_on_who_has_an_account(
    client: httpx2.AsyncClient, make_user: MakeUser, statements: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    """Whether there is one is looked up by the mailer, apart from the request: time tells nothing."""
    await make_user(email="has@example.com")
    for kind in ("has", "none"):
        with statements() as seen:
            answer = await client.post(f"{API}/verify-email/request", json={"email": f"{kind}@example.com"})
        assert (answer.status_code, seen) == (202, [])


async def test_when_required_the_unverified_stay_out_and_a_wrong_password_sounds_as_ever(
    client: httpx2.AsyncClient, mailbox: Mailbox, environment: Environment
) -> None:
    await sign_up(client)
    [mail] = await mailbox.mails()
    assert (await sign_in(client)).status_code == 200
    environment(EMAIL_VERIFICATION__REQUIRED="true")
    refusal = await sign_in(client)
    assert refusal.status_code == 403
    assert refusal.json()["error"]["code"] == "email_not_verified"
    wrong = await sign_in(client, "wrong password")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, "unauthorized")
    assert await verify(client, token_in(mail)) == 204
    assert (await sign_in(client)).status_code == 200


async def test_opening_the_page_uses_nothing_up_and_its_button_verifies(
    client: httpx2.AsyncClient, mailbox: Mailbox, session: AsyncSession
) -> None:
    await sign_up(client)
    [mail] = await mailbox.mails()
    token = token_in(mail)
    for method in ("HEAD", "GET", "GET"):
        page = await client.request(method, f"/verify-email?token={token}")
        assert page.status_code == 200
        assert page.headers["Cache-Control"] == "no-store"
    assert f'value="{token}"' in page.text
    assert not await is_verified(session)

    foreign = await client.post("/verify-email", data={"token": token}, headers={"Sec-Fetch-Site": "cross-site"})
    assert foreign.status_code == 403
    assert not await is_verified(session)

    answer = await client.post("/verify-email", data={"token": token}, headers=OUR_PAGE)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/verify-email/done")
    assert "is verified" in (await client.get("/verify-email/done")).text
    assert await is_verified(session)

    again = await client.post("/verify-email", data={"token": token}, headers=OUR_PAGE)
    assert again.status_code == 400
    assert "expired, was used already" in again.text


async def test_the_page_does_not_run_what_the_link_says(client: httpx2.AsyncClient) -> None:
    page = await client.get("/verify-email", params={"token": '"><script>alert(1)</script>'})
    assert "<script" not in page.text
    assert not re.search(r"<style|\sstyle=|\son\w+=", page.text)


async def test_links_lead_to_the_public_address_whatever_the_host_header_says(
    client: httpx2.AsyncClient, mailbox: Mailbox
) -> None:
    settings = mailbox.mailer.settings
    api = settings.api.model_copy(update={"public_url": "https://app.example.com/shop"})
    mailbox.mailer.settings = settings.model_copy(update={"api": api})
    await sign_up(client)
    [mail] = await mailbox.mails()
    assert "https://app.example.com/shop/verify-email?token=" in text_of(mail)
    assert BASE_URL not in text_of(mail)


async def test_verification_is_told_to_those_who_listen_and_shows_in_the_account(
    mailbox: Mailbox, make_user: MakeUser, client: httpx2.AsyncClient, client_for: ClientFor
) -> None:
    user = await make_user(email=ADA)
    me = client_for(user)
    assert (await me.get(f"{API}/me")).json()["email_verified"] is False
    [mail] = await ask(client, mailbox, ADA)
    assert await verify(client, token_in(mail)) == 204
    assert (await me.get(f"{API}/me")).json()["email_verified"] is True


def test_production_wants_mail_and_a_public_address() -> None:
    assert len(EmailVerificationSettings().offences(Settings())) == 2


@pytest.mark.slow
def test_a_graceful_stop_still_sends_what_waits() -> None:
    with smtp_server() as server:
        server.refusals = ["451 4.3.2 Come back later"]  # so that the mail surely waits when the stop begins
        with running_server(DATABASE_URL="sqlite://", **server.variables) as url:
            answer = httpx2.post(f"{url}{API}/signup", json={"email": ADA, "password": PASSWORD}, timeout=30)
            assert answer.status_code == 201
            assert server.taken == []
        assert [mail["To"] for mail in server.taken] == [ADA]
