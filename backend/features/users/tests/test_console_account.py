"""One's own account in the console."""

import httpx2
import pytest
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.features.users.models import User, UserSession
from backend.testing import PASSWORD, ClientFor, Console, MakeUser

ACCOUNT = "/admin/account"
NEW = "Nautilus-1954-x"


async def send(browser: httpx2.AsyncClient, **form: str) -> httpx2.Response:
    return await browser.post(ACCOUNT, data=form)


async def test_a_person_changes_their_name(console: Console, make_user: MakeUser, session: AsyncSession) -> None:
    user = await make_user("staff")
    browser = await console(user.email)
    page = await send(browser, action="profile", full_name="Ada L.")
    assert (page.status_code, "Your name is saved" in page.text) == (200, True)
    await session.refresh(user)
    assert user.full_name == "Ada L."
    assert (await send(browser, action="profile", full_name="x" * 201)).status_code == 422


async def test_a_new_password_takes_the_present_one_and_signs_out_elsewhere(
    console: Console, make_user: MakeUser, client_for: ClientFor
) -> None:
    user = await make_user("staff")
    browser, other, program = await console(user.email), await console(user.email), client_for(user)
    form = {"action": "password", "current_password": PASSWORD, "new_password": NEW, "again": NEW}
    for mistake, status, said in (
        ({"current_password": "wrong"}, 401, "Wrong"),
        ({"again": "something else"}, 422, "The new passwords differ"),
        ({"new_password": "short", "again": "short"}, 422, "at least"),
    ):
        page = await send(browser, **form | mistake)
        assert (page.status_code, said in page.text) == (status, True), page.text
    assert (await send(browser, **form)).status_code == 200
    assert (await browser.get(ACCOUNT)).status_code == 200
    assert (await other.get(ACCOUNT)).status_code == 302
    assert (await program.get("/api/v1/auth/me")).status_code == 401
    assert (await (await console(user.email, NEW)).get(ACCOUNT)).status_code == 200


async def test_devices_are_signed_out_one_by_one_or_all_but_this(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    user, stranger = await make_user("staff"), await make_user("staff")
    mine, one, two = [await console(user.email) for _ in range(3)]
    theirs = await console(stranger.email)
    in_console = UserSession.kind == "console"  # each has one for tokens, too
    sessions = (
        select(UserSession.id)
        .join(User, col(User.id) == UserSession.user_id)
        .where(in_console)
        .order_by(col(UserSession.id))
    )
    ids = (await session.exec(sessions.where(User.email == user.email))).all()
    foreign = (await session.exec(sessions.where(User.email == stranger.email))).one()
    for number, status in ((str(ids[1]), 200), (str(ids[1]), 404), (str(foreign), 404), ("9" * 30, 404), ("x", 404)):
        assert (await send(mine, action="end", session=number)).status_code == status
    assert (await one.get(ACCOUNT)).status_code == 302
    assert (await two.get(ACCOUNT)).status_code == 200
    page = await send(mine, action="elsewhere")
    assert "2 other sessions were ended" in page.text
    assert [(await browser.get(ACCOUNT)).status_code for browser in (mine, two, theirs)] == [200, 302, 200]


@pytest.mark.parametrize("action", ["", "nonsense"])
async def test_what_makes_no_sense_is_refused(console: Console, make_user: MakeUser, action: str) -> None:
    assert (await send(await console((await make_user("staff")).email), action=action)).status_code == 400
