"""A new password for those who forgot theirs, through HTTP and real mail."""

import asyncio
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from email.message import EmailMessage

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import update
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.config import Settings
from backend.core.models import utc_now
from backend.features.password_reset.settings import PasswordResetSettings
from backend.features.users.events import AccountReclaimed
from backend.features.users.models import OneTimeToken, User
from backend.testing import (
    BASE_URL,
    PASSWORD,
    ClientFor,
    Console,
    Mailbox,
    MakeUser,
    act,
    new_client,
    smtp_server,
    text_of,
)

API = "/api/v1/auth"
ADA = "ada@example.com"
NEW = "Nautilus-1954-x"
OUR_PAGE = {"Sec-Fetch-Site": "same-origin"}


def token_in(mail: EmailMessage) -> str:
    [link] = re.findall(r"^http\S+$", text_of(mail), re.MULTILINE)
    assert link.startswith(f"{BASE_URL}/reset-password?token=")
    return str(link.partition("token=")[2])


async def ask(client: httpx2.AsyncClient, mailbox: Mailbox, email: str = ADA) -> list[EmailMessage]:
    answer = await client.post(f"{API}/password-reset/request", json={"email": email})
    assert answer.status_code == 202
    assert answer.json() == {"message": "If there is an account with this address, a mail is on its way"}
    return await mailbox.mails()


async def get_token(client: httpx2.AsyncClient, mailbox: Mailbox) -> str:
    [mail] = await ask(client, mailbox)
    return token_in(mail)


async def reset(client: httpx2.AsyncClient, token: str, password: str = NEW) -> httpx2.Response:
    return await client.post(f"{API}/password-reset", json={"token": token, "new_password": password})


async def signs_in_with(client: httpx2.AsyncClient, password: str) -> bool:
    answer = await client.post(f"{API}/token", data={"username": ADA, "password": password})
    return answer.status_code == 200


async def age_the_tokens(session: AsyncSession, **earlier: object) -> None:
    await session.exec(update(OneTimeToken).values(**earlier))
    await session.commit()


async def stored(session: AsyncSession) -> User:
    statement = select(User).where(User.email == ADA).execution_options(populate_existing=True)
    return (await session.exec(statement)).one()


async def test_the_link_sets_a_new_password_once_and_signs_out_everywhere(
    client: httpx2.AsyncClient, client_for: ClientFor, mailbox: Mailbox, make_user: MakeUser, session: AsyncSession
) -> None:
    me = client_for(await make_user(email=ADA))
    assert (await me.get(f"{API}/me")).status_code == 200
    token = await get_token(client, mailbox)
    assert (await reset(client, token)).status_code == 204
    assert await signs_in_with(client, NEW)
    assert not await signs_in_with(client, PASSWORD)
    assert (await me.get(f"{API}/me")).status_code == 401
    assert (await stored(session)).email_verified  # they read the mail
    again = await reset(client, token, "Another-1870-y")
    assert (again.status_code, again.json()["error"]["code"]) == (400, "useless_token")
    assert await signs_in_with(client, NEW)


async def test_a_reset_does_not_get_around_the_second_factor(
    client: httpx2.AsyncClient, client_for: ClientFor, mailbox: Mailbox, make_user: MakeUser
) -> None:
    enrolment = pytest.importorskip("backend.features.two_factor.tests.enrolment")
    phone, _ = await enrolment.enrol(client_for(await make_user(email=ADA, email_verified_at=utc_now())))
    token = await get_token(client, mailbox)
    assert (await reset(client, token)).status_code == 204
    form = {"username": ADA, "password": NEW}
    refused = await client.post(f"{API}/token", data=form)
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "second_factor_required")
    assert (await client.post(f"{API}/token", data=form | {"code": phone.soon})).status_code == 200


async def test_a_weak_password_leaves_the_link_good(
    client: httpx2.AsyncClient, mailbox: Mailbox, make_user: MakeUser
) -> None:
    await make_user(email=ADA)
    token = await get_token(client, mailbox)
    for weak in ("short", "aaaaaaaaaaaaaaa"):
        answer = await reset(client, token, weak)
        assert answer.status_code == 422
        assert answer.json()["error"]["details"][0]["type"] == "weak_password"
    assert (await reset(client, token)).status_code == 204


async def test_a_link_expires(
    client: httpx2.AsyncClient, mailbox: Mailbox, make_user: MakeUser, session: AsyncSession
) -> None:
    await make_user(email=ADA)
    token = await get_token(client, mailbox)
    await age_the_tokens(session, expires_at=utc_now())
    assert (await reset(client, token)).status_code == 400
    assert await signs_in_with(client, PASSWORD)


async def test_a_link_to_an_earlier_address_is_no_good(
    client: httpx2.AsyncClient,
    as_admin: httpx2.AsyncClient,
    mailbox: Mailbox,
    make_user: MakeUser,
) -> None:
    user = await make_user(email=ADA)
    token = await get_token(client, mailbox)
    answer = await as_admin.patch(f"/api/v1/users/{user.id}", json={"email": "countess@example.com"})
    assert answer.status_code == 200
    assert (await reset(client, token)).status_code == 400


@pytest.mark.parametrize("when", ["before", "after"])
async def test_the_deactivated_get_no_link_and_can_use_none(
    client: httpx2.AsyncClient, mailbox: Mailbox, make_user: MakeUser, session: AsyncSession, when: str
) -> None:
    user = await make_user(email=ADA, is_active=when == "after")
    if when == "before":
        assert await ask(client, mailbox) == []
        return
    token = await get_token(client, mailbox)
    user.is_active = False
    session.add(user)
    await session.commit()
    assert (await reset(client, token)).status_code == 400
    assert (await client.get("/reset-password", params={"token": token})).status_code == 400


async def test_a_link_can_be_asked_for_once_a_minute_and_the_newest_is_the_one_that_works(
    client: httpx2.AsyncClient, mailbox: Mailbox, make_user: MakeUser, session: AsyncSession
) -> None:
    await make_user(email=ADA)
    first = await get_token(client, mailbox)
    assert await ask(client, mailbox) == []
    await age_the_tokens(session, created_at=utc_now().replace(year=2000))
    second = await get_token(client, mailbox)
    assert (await reset(client, first)).status_code == 400
    assert (await reset(client, second)).status_code == 204


@pytest.mark.usefixtures("idle_mailer")
async def test_the_answer_waits_for_nothing_that_depends_on_who_has_an_account(
    client: httpx2.AsyncClient, make_user: MakeUser, statements: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    """Whether there is one is looked up by the mailer, apart from the request: time tells nothing."""
    await make_user(email="has@example.com")
    for kind in ("has", "none"):
        with statements() as seen:
            answer = await client.post(f"{API}/password-reset/request", json={"email": f"{kind}@example.com"})
        assert (answer.status_code, seen) == (202, [])


async def test_the_owner_is_told_of_every_new_password(
    client: httpx2.AsyncClient, client_for: ClientFor, mailbox: Mailbox, make_user: MakeUser
) -> None:
    me = client_for(await make_user(email=ADA))
    change = {"current_password": PASSWORD, "new_password": NEW}
    assert (await me.post(f"{API}/password", json=change)).status_code == 204
    [mail] = await mailbox.mails()
    assert (mail["To"], mail["Subject"]) == (ADA, "Your password was changed")
    assert f"{utc_now():%Y-%m-%d} at" in text_of(mail)
    assert "from the address 127.0.0.1" in text_of(mail)
    assert "was not you" not in text_of(mail)
    assert NEW not in mail.as_string()


async def test_the_notice_names_an_administrator_but_not_their_address(
    as_admin: httpx2.AsyncClient, mailbox: Mailbox, make_user: MakeUser
) -> None:
    user = await make_user(email=ADA)
    answer = await as_admin.patch(f"/api/v1/users/{user.id}", json={"password": NEW})
    assert answer.status_code == 200
    [mail] = await mailbox.mails()
    assert "by an administrator" in text_of(mail)
    assert "127.0.0.1" not in text_of(mail)


async def test_a_wrong_present_password_mails_nothing(
    client_for: ClientFor, mailbox: Mailbox, make_user: MakeUser
) -> None:
    me = client_for(await make_user(email=ADA))
    change = {"current_password": "not this one", "new_password": NEW}
    assert (await me.post(f"{API}/password", json=change)).status_code == 401
    assert await mailbox.mails() == []


async def test_the_page_sets_the_password_without_javascript(
    client: httpx2.AsyncClient, mailbox: Mailbox, make_user: MakeUser
) -> None:
    await make_user(email=ADA)
    token = await get_token(client, mailbox)
    for method in ("HEAD", "GET", "GET"):
        page = await client.request(method, "/reset-password", params={"token": token})
        assert page.status_code == 200
        assert page.headers["Cache-Control"] == "no-store"
    assert f'value="{token}"' in page.text
    assert ADA in page.text
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=", page.text)
    assert page.text.count('<input type="password"') == page.text.count('autocomplete="new-password"') == 2

    async def post(password: str, repeated: str, **headers: str) -> httpx2.Response:
        data = {"token": token, "password": password, "repeated": repeated}
        return await client.post("/reset-password", data=data, headers=headers or OUR_PAGE)

    assert (await post(NEW, NEW, Origin="https://evil.example")).status_code == 403
    for password, repeated, complaint in (
        (NEW, "else", "The two passwords differ"),
        ("short", "short", "at least 10 characters"),
        ("x" * 200, "x" * 200, "Use at most 128 characters"),
    ):
        answer = await post(password, repeated)
        assert answer.status_code == 422
        assert complaint in answer.text
        assert f'value="{token}"' in answer.text
        assert f'value="{password}"' not in answer.text
    assert await signs_in_with(client, PASSWORD)

    answer = await post(NEW, NEW)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/reset-password/done")
    assert "You have a new password" in (await client.get("/reset-password/done")).text
    assert await signs_in_with(client, NEW)
    assert (await post(NEW, NEW)).status_code == 400
    assert (await client.get("/reset-password", params={"token": token})).status_code == 400


async def test_of_two_who_use_a_link_at_once_one_gets_the_account(make_app: Callable[..., FastAPI]) -> None:
    with smtp_server() as server:
        app = make_app(**server.variables)
        async with app.router.lifespan_context(app), new_client(app) as client:
            await client.post(f"{API}/signup", json={"email": ADA, "password": PASSWORD})
            await client.post(f"{API}/password-reset/request", json={"email": ADA})
            token = token_in(await server.next_mail("Choose a new password"))
            passwords = [f"{NEW}-{number}" for number in range(4)]
            answers = [
                answer.status_code for answer in await asyncio.gather(*(reset(client, token, p) for p in passwords))
            ]
            assert sorted(answers) == [204, 400, 400, 400]
            assert [await signs_in_with(client, password) for password in passwords] == [a == 204 for a in answers]
            await app.state.mailer.idle()
    assert sum(mail["Subject"] == "Your password was changed" for mail in server.taken) == 1


async def test_a_made_up_link_is_told_so_at_once(client: httpx2.AsyncClient) -> None:
    for url in ("/reset-password", "/reset-password?token=%00", "/reset-password?token=<script>"):
        page = await client.get(url)
        assert page.status_code == 400
        assert "That did not work" in page.text
        assert "<script" not in page.text


def test_production_wants_mail_and_a_public_address() -> None:
    assert len(PasswordResetSettings().offences(Settings())) == 2


@pytest.mark.parametrize("verified", [True, False])
async def test_who_resets_an_account_that_a_stranger_may_have_made_gets_it_without_the_strangers_ways_in(
    app: FastAPI, client: httpx2.AsyncClient, make_user: MakeUser, mailbox: Mailbox, verified: bool
) -> None:
    heard: list[int] = []

    async def listen(_session: AsyncSession, event: AccountReclaimed) -> None:
        heard.append(event.user_id)

    user = await make_user(email=ADA, email_verified_at=utc_now() if verified else None)
    handlers = app.state.database.info["handlers"]
    listening = {**handlers, AccountReclaimed: (*handlers.get(AccountReclaimed, ()), listen)}
    app.state.database.info["handlers"] = listening
    try:
        assert (await reset(client, await get_token(client, mailbox))).status_code == 204
    finally:
        app.state.database.info["handlers"] = handlers
    assert heard == ([] if verified else [user.id])


async def test_a_new_password_makes_earlier_links_worthless(
    client: httpx2.AsyncClient, make_user: MakeUser, mailbox: Mailbox, as_admin: httpx2.AsyncClient
) -> None:
    user = await make_user(email=ADA)
    token = await get_token(client, mailbox)
    assert (await as_admin.patch(f"/api/v1/users/{user.id}", json={"password": NEW})).status_code == 200
    assert (await reset(client, token, "Kapitän Nemo taucht tief")).status_code == 400


async def test_staff_send_the_link_from_the_console(
    client: httpx2.AsyncClient, console: Console, make_user: MakeUser, mailbox: Mailbox
) -> None:
    ada, gone, admin = await make_user(email=ADA), await make_user(is_active=False), await make_user("admin")
    browser = await console((await make_user("staff")).email)
    assert (await act(browser, "user", "send_password_link", ada.id)).status_code == 303
    [mail] = await mailbox.mails()
    assert (await reset(client, token_in(mail))).status_code == 204
    assert (await act(browser, "user", "send_password_link", gone.id)).status_code == 409
    assert (await act(browser, "user", "send_password_link", admin.id)).status_code == 403
