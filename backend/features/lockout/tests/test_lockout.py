"""Delays for those who guess passwords: of pairs, accounts and addresses; who is spared; who may lift them."""

from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.events import Event, Handlers
from backend.features.lockout import housekeeping
from backend.features.lockout.events import LockoutLifted, SignInDelayed
from backend.features.lockout.keys import network
from backend.features.lockout.models import Throttle
from backend.features.lockout.service import delay
from backend.features.users import passwords
from backend.testing import (
    BASE_URL,
    PASSWORD,
    ClientFor,
    Console,
    MakeUser,
    act,
    running_server,
)

TOKEN = "/api/v1/auth/token"
HOME, ELSEWHERE = "192.0.2.1", "198.51.100.7"


def at(app: FastAPI, address: str) -> httpx2.AsyncClient:
    """Somebody who calls from this address."""
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app, client=(address, 1)), base_url=BASE_URL)


async def sign_in(
    app: FastAPI, email: str, password: str = PASSWORD, *, address: str = HOME, **more: str
) -> httpx2.Response:
    async with at(app, address) as client:
        return await client.post(TOKEN, data={"username": email, "password": password, **more})


async def fail(app: FastAPI, email: str, times: int, *, address: str = HOME) -> list[int]:
    return [(await sign_in(app, email, "wrong", address=address)).status_code for _ in range(times)]


async def time_passes(session: AsyncSession, **by: int) -> None:
    """As if everything stored had happened earlier."""
    for row in (await session.exec(select(Throttle).execution_options(populate_existing=True))).all():
        for name in ("last_failure_at", "blocked_until", "forgotten_at", "familiar_until"):
            if (moment := getattr(row, name)) is not None:
                setattr(row, name, moment - timedelta(**by))
        session.add(row)
    await session.commit()


@pytest.fixture
def happened(app: FastAPI) -> Any:
    """What was emitted during the test."""
    seen: list[Event] = []

    async def note(_session: AsyncSession, event: Event) -> None:
        seen.append(event)

    before: Handlers = app.state.database.info["handlers"]
    mine: dict[type[Event], Any] = {kind: (*before.get(kind, ()), note) for kind in (SignInDelayed, LockoutLifted)}
    app.state.database.info["handlers"] = {**before, **mine}
    yield seen
    app.state.database.info["handlers"] = before


async def test_five_wrong_passwords_delay_the_next_try_even_the_right_one(app: FastAPI, make_user: MakeUser) -> None:
    user, before = await make_user(), app.state.tallies["lockouts", ""]
    assert await fail(app, user.email, 5) == [401] * 5
    refused = await sign_in(app, user.email)
    assert refused.status_code == 429
    assert app.state.tallies["lockouts", ""] == before + 1
    assert refused.json()["error"]["code"] == "too_many_requests"
    assert 1 <= int(refused.headers["Retry-After"]) <= 2


async def test_who_waits_as_told_may_try_again(app: FastAPI, make_user: MakeUser, session: AsyncSession) -> None:
    user = await make_user()
    await fail(app, user.email, 5)
    await time_passes(session, seconds=int((await sign_in(app, user.email)).headers["Retry-After"]))
    assert (await sign_in(app, user.email)).status_code == 200


async def test_the_delay_doubles_up_to_its_longest(app: FastAPI, make_user: MakeUser, session: AsyncSession) -> None:
    user = await make_user()
    await fail(app, user.email, 4)
    waits = []
    for _ in range(13):
        await fail(app, user.email, 1)
        waits.append(int((await sign_in(app, user.email)).headers["Retry-After"]))
        await time_passes(session, seconds=waits[-1])
    wanted = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]
    assert all(0 <= wait - least <= 1 for wait, least in zip(waits, wanted, strict=True)), waits


def test_delays_stay_within_their_bounds_however_many_fail() -> None:
    assert [delay("account", failures) for failures in (9, 10, 11, 15, 16, 10**9)] == [0, 1, 2, 32, 60, 60]
    assert [delay("address", failures) for failures in (19, 20, 10**9)] == [0, 1, 900]


async def test_a_refused_try_neither_hashes_nor_counts(
    app: FastAPI, make_user: MakeUser, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await make_user()
    await fail(app, user.email, 5)
    monkeypatch.setattr(passwords, "_verify", lambda *_: pytest.fail("hashed"))
    assert await fail(app, user.email, 10) == [429] * 10
    assert {row.failures for row in (await session.exec(select(Throttle))).all()} == {5}


async def test_an_address_that_nobody_has_is_treated_alike(app: FastAPI, make_user: MakeUser) -> None:
    user = await make_user()
    answers = []
    for email in (user.email, "nobody@example.com"):
        wrong = await fail(app, email, 5)
        refused = await sign_in(app, email)
        text = refused.json()["error"]["message"].translate(str.maketrans("", "", "0123456789"))
        answers.append((wrong, refused.status_code, text, sorted(refused.headers)))
    assert answers[0] == answers[1]
    assert answers[0][1] == 429


async def test_another_spelling_is_the_same_account(app: FastAPI, make_user: MakeUser) -> None:
    user = await make_user()
    await fail(app, f"  {user.email.upper()} ", 5)
    assert (await sign_in(app, user.email)).status_code == 429


async def test_a_sign_in_forgets_the_failures_of_the_account(app: FastAPI, make_user: MakeUser) -> None:
    user = await make_user()
    for _ in range(3):
        assert await fail(app, user.email, 4) == [401] * 4
        assert (await sign_in(app, user.email)).status_code == 200


async def test_failures_are_forgotten_after_a_quiet_hour(
    app: FastAPI, make_user: MakeUser, session: AsyncSession
) -> None:
    user = await make_user()
    await fail(app, user.email, 4)
    await time_passes(session, minutes=61)
    assert await fail(app, user.email, 4) == [401] * 4
    assert (await sign_in(app, user.email)).status_code == 200


async def test_a_stranger_slows_a_victim_for_a_minute_at_most(
    app: FastAPI, make_user: MakeUser, session: AsyncSession
) -> None:
    victim = await make_user()
    for number in range(25):  # from another address each time, as soon as they may
        await fail(app, victim.email, 1, address=f"203.0.113.{number}")
        if number < 9:
            continue
        refused = await sign_in(app, victim.email, address=ELSEWHERE)
        await time_passes(session, seconds=int(refused.headers["Retry-After"]))
    assert 60 <= int(refused.headers["Retry-After"]) <= 61
    assert (await sign_in(app, victim.email, address=ELSEWHERE)).status_code == 200


async def test_a_stranger_cannot_slow_a_victim_where_they_have_signed_in(
    app: FastAPI, make_user: MakeUser, session: AsyncSession
) -> None:
    victim = await make_user()
    assert (await sign_in(app, victim.email, address=HOME)).status_code == 200
    for number in range(12):
        await fail(app, victim.email, 1, address=f"203.0.113.{number}")
    assert (await sign_in(app, victim.email, address=ELSEWHERE)).status_code == 429
    assert (await sign_in(app, victim.email, address=HOME)).status_code == 200


async def test_a_place_is_familiar_for_thirty_days(app: FastAPI, make_user: MakeUser, session: AsyncSession) -> None:
    victim = await make_user()
    await sign_in(app, victim.email, address=HOME)
    await time_passes(session, days=31)
    for number in range(12):
        await fail(app, victim.email, 1, address=f"203.0.113.{number}")
    assert (await sign_in(app, victim.email, address=HOME)).status_code == 429


async def test_one_address_trying_many_accounts_is_delayed_and_others_are_not(
    app: FastAPI, make_user: MakeUser
) -> None:
    user, colleague = await make_user(), await make_user()
    await sign_in(app, colleague.email)
    for number in range(20):
        assert await fail(app, f"person{number}@example.com", 1) == [401]
    assert (await sign_in(app, user.email)).status_code == 429
    assert (await sign_in(app, user.email, address=ELSEWHERE)).status_code == 200
    assert (await sign_in(app, colleague.email)).status_code == 200, "has signed in from there before"


async def test_a_sign_in_does_not_clear_the_address(app: FastAPI, make_user: MakeUser) -> None:
    own, victim = await make_user(), await make_user()
    for number in range(19):
        await fail(app, f"person{number}@example.com", 1)
    assert (await sign_in(app, own.email)).status_code == 200
    assert await fail(app, "one-more@example.com", 1) == [401]
    assert (await sign_in(app, victim.email)).status_code == 429


async def test_an_ipv6_household_is_one_address(app: FastAPI, make_user: MakeUser) -> None:
    user = await make_user()
    for number in range(5):
        await fail(app, user.email, 1, address=f"2001:db8:1:2::{number + 1:x}")
    assert (await sign_in(app, user.email, address="2001:db8:1:2:ffff::9")).status_code == 429
    assert (await sign_in(app, user.email, address="2001:db8:1:3::1")).status_code == 200


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::1", "::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
    ],
)
def test_addresses_are_counted_by_network(address: str, wanted: str) -> None:
    assert network(address) == wanted


async def test_where_nobody_has_an_address_only_the_accounts_own_short_delay_applies(
    app: FastAPI, make_user: MakeUser
) -> None:
    user, other = await make_user(), await make_user()
    assert await fail(app, user.email, 10, address="") == [401] * 10
    assert (await sign_in(app, user.email, address="")).status_code == 429
    assert (await sign_in(app, other.email, address="")).status_code == 200


async def test_wrong_present_passwords_of_a_change_count(
    app: FastAPI, make_user: MakeUser, client_for: ClientFor
) -> None:
    person = client_for(await make_user())
    change = {"current_password": "wrong password", "new_password": "another good password"}
    answers = [(await person.post("/api/v1/auth/password", json=change)).status_code for _ in range(6)]
    assert answers == [401] * 5 + [429]


async def test_delays_are_told_to_the_log(app: FastAPI, make_user: MakeUser, happened: list[Any]) -> None:
    user = await make_user()
    await fail(app, user.email, 5)
    assert [(one.user_id, one.email, one.kind, one.seconds) for one in happened] == [(user.id, user.email, "pair", 1)]
    assert happened[0].action == "sign_in.delayed"
    await fail(app, "nobody@example.com", 5, address=ELSEWHERE)
    assert happened[-1].user_id is None


async def test_administrators_see_and_lift_delays(
    app: FastAPI,
    make_user: MakeUser,
    as_admin: httpx2.AsyncClient,
    as_staff: httpx2.AsyncClient,
    happened: list[Any],
) -> None:
    user = await make_user()
    path = f"/api/v1/users/{user.id}/lockout"
    assert (await as_admin.get(path)).json() == {"delays": []}
    await fail(app, user.email, 5)
    (shown,) = (await as_staff.get(path)).json()["delays"]
    assert (shown["kind"], shown["address"], shown["failures"]) == ("pair", HOME, 5)
    assert (await as_staff.delete(path)).status_code == 403
    assert (await as_admin.delete(path)).status_code == 204
    assert (await as_admin.get(path)).json() == {"delays": []}
    assert isinstance(happened[-1], LockoutLifted)
    assert happened[-1].user_id == user.id
    assert (await sign_in(app, user.email)).status_code == 200
    told = len(happened)
    assert (await as_admin.delete(path)).status_code == 204, "nothing to lift is no error"
    assert len(happened) == told
    assert (await as_admin.get("/api/v1/users/999999/lockout")).status_code == 404


async def test_lifting_leaves_places_familiar(app: FastAPI, make_user: MakeUser, as_admin: httpx2.AsyncClient) -> None:
    user = await make_user()
    await sign_in(app, user.email)
    await fail(app, user.email, 5)
    await as_admin.delete(f"/api/v1/users/{user.id}/lockout")
    for number in range(12):
        await fail(app, user.email, 1, address=f"203.0.113.{number}")
    assert (await sign_in(app, user.email)).status_code == 200


async def test_a_new_password_starts_again(app: FastAPI, make_user: MakeUser, as_admin: httpx2.AsyncClient) -> None:
    user = await make_user()
    await fail(app, user.email, 5)
    new = "another good password"
    assert (await as_admin.patch(f"/api/v1/users/{user.id}", json={"password": new})).status_code == 200
    assert (await sign_in(app, user.email, new)).status_code == 200


async def test_the_console_says_that_one_has_to_wait(app: FastAPI, make_user: MakeUser, console: Console) -> None:
    staff = await make_user("staff")
    browser = await console(staff.email, None)
    for _ in range(5):
        wrong = await browser.post("/admin/login", data={"username": staff.email, "password": "wrong"})
    assert wrong.status_code == 400
    refused = await browser.post("/admin/login", data={"username": staff.email, "password": PASSWORD})
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) >= 1
    assert "Too many failed sign-ins: try again in" in refused.text


async def test_the_console_lists_delays_that_last_and_deleting_one_lifts_it(
    app: FastAPI, make_user: MakeUser, console: Console, session: AsyncSession
) -> None:
    admin, user = await make_user("admin"), await make_user()
    browser = await console(admin.email)
    await fail(app, "counted@example.com", 1, address="203.0.113.99")
    await fail(app, user.email, 5, address="203.0.113.5")
    page = await browser.get("/admin/throttle/list")
    assert page.status_code == 200
    assert "203.0.113.5" in page.text
    assert "203.0.113.99" not in page.text
    row = (await session.exec(select(Throttle).where(col(Throttle.blocked_until).is_not(None)))).one()
    assert (await act(browser, "throttle", "delete", row.id)).status_code == 303
    assert "203.0.113.5" not in (await browser.get("/admin/throttle/list")).text
    assert (await sign_in(app, user.email, address="203.0.113.5")).status_code == 200


async def test_what_is_over_is_deleted_and_familiar_places_stay(
    app: FastAPI, make_user: MakeUser, session: AsyncSession
) -> None:
    user = await make_user()
    await sign_in(app, user.email)
    await fail(app, "nobody@example.com", 1, address=ELSEWHERE)
    await housekeeping.tidy(app.state.database)
    assert len((await session.exec(select(Throttle))).all()) == 4
    await time_passes(session, minutes=61)
    await housekeeping.tidy(app.state.database)
    assert [row.kind for row in (await session.exec(select(Throttle))).all()] == ["pair"]
    await time_passes(session, days=31)
    await housekeeping.tidy(app.state.database)
    assert (await session.exec(select(Throttle))).all() == []


async def test_deleting_an_account_deletes_what_is_known_of_it(
    app: FastAPI, make_user: MakeUser, as_admin: httpx2.AsyncClient, session: AsyncSession
) -> None:
    user = await make_user()
    await fail(app, user.email, 1)
    assert (await as_admin.delete(f"/api/v1/users/{user.id}")).status_code == 204
    assert [row.kind for row in (await session.exec(select(Throttle))).all()] == ["address"]


async def guesses(base: str, *forwarded: str) -> list[int]:
    """Wrong passwords for one account, each said to come from another address."""
    async with httpx2.AsyncClient(base_url=base) as client:
        form = {"username": "somebody@example.com", "password": "wrong"}
        return [
            (await client.post(TOKEN, data=form, headers={"X-Forwarded-For": one})).status_code for one in forwarded
        ]


@pytest.mark.slow
@pytest.mark.parametrize(("trusted", "last"), [("192.0.2.250", 429), ("127.0.0.1", 401)])
async def test_a_forwarded_address_counts_only_when_a_trusted_proxy_says_it(trusted: str, last: int) -> None:
    with running_server(DATABASE_URL="sqlite://", SERVER__FORWARDED_ALLOW_IPS=trusted) as base:
        answers = await guesses(base, *(f"203.0.113.{number}" for number in range(6)))
    assert answers == [401] * 5 + [last]
