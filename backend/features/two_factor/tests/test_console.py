"""The second factor in the console: signing in with it, and the page where people set it up."""

import html
import re
from collections.abc import Callable

import httpx2
import pytest

from backend.features.two_factor.tests.enrolment import Phone, enrol
from backend.testing import PASSWORD, ClientFor, Console, MakeUser, act

PAGE = "/admin/second-factor"
LOGIN = "/admin/login"


async def is_signed_in(browser: httpx2.AsyncClient) -> bool:
    return (await browser.get("/admin/")).status_code == 200


def pending(page: httpx2.Response) -> str:
    found = re.search(r'name="pending" value="([^"]+)"', page.text)
    assert found, page.text
    return found[1]


def secret(page: httpx2.Response) -> Phone:
    found = re.search(r"<code[^>]*>([A-Z2-7]{32})</code>", page.text)
    assert found, page.text
    return Phone(found[1])


def recovery_codes(page: httpx2.Response) -> list[str]:
    return re.findall(r">([a-z2-7]{4}(?:-[a-z2-7]{4}){7})<", page.text)


# --- signing in ----------------------------------------------------------------------------------------------------


async def test_signing_in_takes_a_second_step(console: Console, make_user: MakeUser, client_for: ClientFor) -> None:
    admin = await make_user("admin")
    phone, _ = await enrol(client_for(admin))
    browser = await console(admin.email, None)
    first = await browser.post(LOGIN, data={"username": admin.email, "password": PASSWORD})
    assert first.status_code == 401
    assert "set-cookie" not in first.headers
    assert 'name="password"' not in first.text
    assert 'role="alert"' not in first.text
    assert not await is_signed_in(browser)
    wrong = await browser.post(LOGIN, data={"pending": pending(first), "code": phone.wrong})
    assert (wrong.status_code, "Wrong code" in wrong.text) == (401, True)
    assert pending(wrong) == pending(first)
    right = await browser.post(LOGIN, data={"pending": pending(wrong), "code": f" {phone.soon} "})
    assert (right.status_code, right.headers["location"]) == (303, "http://localhost/admin/")
    assert await is_signed_in(browser)


async def test_a_recovery_code_is_good_for_the_second_step(
    console: Console, make_user: MakeUser, client_for: ClientFor
) -> None:
    admin = await make_user("admin")
    _, recovery = await enrol(client_for(admin))
    browser = await console(admin.email, None)
    for _, status in ((1, 303), (2, 401)):
        first = await browser.post(LOGIN, data={"username": admin.email, "password": PASSWORD})
        second = await browser.post(LOGIN, data={"pending": pending(first), "code": recovery[0]})
        assert second.status_code == status


async def test_a_second_step_without_a_code_asks_again(
    console: Console, make_user: MakeUser, client_for: ClientFor
) -> None:
    admin = await make_user("admin")
    phone, _ = await enrol(client_for(admin))
    browser = await console(admin.email, None)
    first = await browser.post(LOGIN, data={"username": admin.email, "password": PASSWORD})
    empty = await browser.post(LOGIN, data={"pending": pending(first), "code": ""})
    assert empty.status_code == 401
    right = await browser.post(LOGIN, data={"pending": pending(empty), "code": phone.soon})
    assert right.status_code == 303


@pytest.mark.parametrize("step", ["nonsense", "\x00", "x" * 5000])
async def test_a_step_that_was_not_begun_begins_anew(console: Console, make_user: MakeUser, step: str) -> None:
    browser = await console((await make_user("admin")).email, None)
    answer = await browser.post(LOGIN, data={"pending": step, "code": "123456"})
    assert answer.status_code == 400
    assert "This sign-in took too long" in answer.text
    assert 'name="password"' in answer.text
    assert 'name="pending"' not in answer.text


async def test_who_may_not_enter_stays_outside_with_the_right_code_too(
    console: Console, make_user: MakeUser, client_for: ClientFor
) -> None:
    user = await make_user()
    phone, _ = await enrol(client_for(user))
    browser = await console(user.email, None)
    first = await browser.post(LOGIN, data={"username": user.email, "password": PASSWORD})
    second = await browser.post(LOGIN, data={"pending": pending(first), "code": phone.soon})
    assert (second.status_code, "may not use the console" in second.text) == (400, True)


# --- the page ------------------------------------------------------------------------------------------------------


async def test_a_person_sets_it_up_renews_the_codes_and_switches_it_off(console: Console, make_user: MakeUser) -> None:
    browser = await console((await make_user("staff")).email)
    assert PAGE in (await browser.get("/admin/")).text
    begun = await browser.post(PAGE, data={"action": "begin", "password": PASSWORD})
    assert (begun.status_code, "<svg" in begun.text) == (200, True)
    phone = secret(begun)
    confirmed = await browser.post(PAGE, data={"action": "confirm", "code": phone.now})
    first = recovery_codes(confirmed)
    assert len(first) == 10
    later = await browser.get(PAGE)
    assert "10 recovery codes left" in later.text
    assert not any(shown in later.text for shown in (phone.secret, first[0], "<svg"))
    renewed = await browser.post(PAGE, data={"action": "renew", "code": first[0]})
    second = recovery_codes(renewed)
    assert (len(second), set(first) & set(second)) == (10, set())
    off = await browser.post(PAGE, data={"action": "disable", "password": PASSWORD, "code": second[0]})
    assert "Your second factor is off." in off.text
    assert "Set up a second factor" in (await browser.get(PAGE)).text


async def test_switching_it_on_or_off_makes_copies_of_the_cookie_worthless(
    client: httpx2.AsyncClient, console: Console, make_user: MakeUser
) -> None:
    browser = await console((await make_user("admin")).email)
    phone = secret(await browser.post(PAGE, data={"action": "begin", "password": PASSWORD}))

    async def is_stolen_for_nothing(form: dict[str, str]) -> httpx2.Response:
        copied = {"Cookie": f"console_session={browser.cookies['console_session']}"}
        assert (await client.get("/admin/", headers=copied)).status_code == 200
        answer = await browser.post(PAGE, data=form)
        assert answer.status_code == 200
        assert (await client.get("/admin/", headers=copied)).status_code == 302
        assert await is_signed_in(browser)
        return answer

    confirmed = await is_stolen_for_nothing({"action": "confirm", "code": phone.now})
    code = recovery_codes(confirmed)[0]
    await is_stolen_for_nothing({"action": "disable", "password": PASSWORD, "code": code})


async def test_what_is_refused_is_said_and_the_secret_is_not_shown_again(console: Console, make_user: MakeUser) -> None:
    browser = await console((await make_user("staff")).email)
    refused = await browser.post(PAGE, data={"action": "begin", "password": "wrong"})
    assert (refused.status_code, "Wrong e-mail address or password" in refused.text) == (401, True)
    phone = secret(await browser.post(PAGE, data={"action": "begin", "password": PASSWORD}))
    wrong = await browser.post(PAGE, data={"action": "confirm", "code": phone.wrong})
    assert (wrong.status_code, "Wrong code" in wrong.text) == (401, True)
    assert phone.secret not in wrong.text
    assert recovery_codes(wrong) == []
    right = await browser.post(PAGE, data={"action": "confirm", "code": phone.now})
    assert len(recovery_codes(right)) == 10


@pytest.mark.parametrize("data", [{}, {"action": "nonsense"}, {"action": "renew"}, {"action": "disable"}], ids=str)
async def test_what_makes_no_sense_is_refused(console: Console, make_user: MakeUser, data: dict[str, str]) -> None:
    browser = await console((await make_user("staff")).email)
    assert 400 <= (await browser.post(PAGE, data=data)).status_code < 500


async def test_another_sites_page_cannot_send_its_forms(console: Console, make_user: MakeUser) -> None:
    browser = await console((await make_user("staff")).email)
    foreign = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    answer = await browser.post(PAGE, data={"action": "begin", "password": PASSWORD}, headers=foreign)
    assert answer.status_code == 403


async def test_the_page_is_for_those_who_are_signed_in(console: Console) -> None:
    browser = await console("nobody@example.com", None)
    for answer in (await browser.get(PAGE), await browser.post(PAGE, data={"action": "begin"})):
        assert (answer.status_code, answer.headers["location"]) == (302, "http://localhost/admin/login")


async def test_where_it_is_required_the_home_page_says_so_until_it_is_on(
    console: Console, make_user: MakeUser, environment: Callable[..., None]
) -> None:
    environment(TWO_FACTOR__REQUIRED_FOR_STAFF="true")
    browser = await console((await make_user("admin")).email)
    home = html.unescape((await browser.get("/admin/")).text)
    assert "Until you have a second factor" in home
    assert "/admin/user/list" not in home
    assert (await browser.get("/admin/user/list")).status_code == 403
    phone = secret(await browser.post(PAGE, data={"action": "begin", "password": PASSWORD}))
    confirmed = await browser.post(PAGE, data={"action": "confirm", "code": phone.now})
    assert "cannot be switched off" in confirmed.text
    home = html.unescape((await browser.get("/admin/")).text)
    assert "Until you have a second factor" not in home
    assert "/admin/user/list" in home
    assert (await browser.get("/admin/user/list")).status_code == 200
    refused = await browser.post(PAGE, data={"action": "disable", "password": PASSWORD, "code": phone.soon})
    assert refused.status_code == 409


async def test_an_administrator_removes_the_second_factor_of_somebody_who_lost_it(
    console: Console, make_user: MakeUser, client_for: ClientFor
) -> None:
    lost = await make_user("staff")
    await enrol(client_for(lost))
    browser = await console((await make_user("admin")).email)
    assert "Remove second factor" in (await browser.get(f"/admin/user/details/{lost.id}")).text
    assert (await act(browser, "user", "reset_second_factor", lost.id)).status_code == 303
    assert (await act(browser, "user", "reset_second_factor", lost.id)).status_code == 404
    assert await is_signed_in(await console(lost.email))
    assert (await act(await console(lost.email), "user", "reset_second_factor", lost.id)).status_code == 403
