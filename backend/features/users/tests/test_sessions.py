"""Sessions: refresh by rotating tokens, by body and by cookie; lists; sign-out; what ends them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from alembic import command
from fastapi import FastAPI
from sqlmodel import Session as SyncSession
from sqlmodel import col, create_engine, func, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.config import Settings
from backend.core.db import sync_url
from backend.core.errors import Unauthorized
from backend.core.models import utc_now
from backend.features.users.housekeeping import delete_what_is_over
from backend.features.users.models import RefreshToken, User, UserSession
from backend.features.users.sessions import begin as session_begin
from backend.features.users.sign_in import check_password, proven
from backend.main import create_app
from backend.testing import (
    BASE_URL,
    PASSWORD,
    PASSWORD_HASH,
    ClientFor,
    Console,
    MakeUser,
    new_client,
    run_alembic,
    running_server,
    settings_for,
    temporary_database,
)

AUTH = "/api/v1/auth"
NEW_PASSWORD = "a staple of correct batteries"


async def sign_in(client: httpx2.AsyncClient, email: str, **more: str) -> dict[str, Any]:
    answer = await client.post(f"{AUTH}/token", data={"username": email, "password": PASSWORD, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def refresh(client: httpx2.AsyncClient, token: str) -> httpx2.Response:
    return await client.post(f"{AUTH}/refresh", json={"refresh_token": token})


async def works(client: httpx2.AsyncClient, token: dict[str, Any]) -> bool:
    answer = await client.get(f"{AUTH}/me", headers={"Authorization": f"Bearer {token['access_token']}"})
    assert answer.status_code in (200, 401)
    return answer.status_code == 200


async def age_refresh_tokens(
    session: AsyncSession, *, used: timedelta = timedelta(), made: timedelta = timedelta()
) -> None:
    """Let time pass."""
    was_used = col(RefreshToken.used_at).is_not(None)
    await session.exec(update(RefreshToken).where(was_used).values(used_at=utc_now() - used))
    await session.exec(update(RefreshToken).values(created_at=utc_now() - made))
    await session.commit()


# --- refresh -------------------------------------------------------------------------------------------------------


async def test_refresh_gives_a_new_pair(client: httpx2.AsyncClient, make_user: MakeUser) -> None:
    first = await sign_in(client, (await make_user()).email)
    answer = await refresh(client, first["refresh_token"])
    assert answer.headers["Cache-Control"] == "no-store"
    second = answer.json()
    assert second["refresh_token"] not in (None, first["refresh_token"])
    assert second["access_token"] != first["access_token"]
    assert await works(client, second)
    assert (await refresh(client, second["refresh_token"])).status_code == 200


async def test_refresh_keeps_a_token_as_small_as_it_was(client: httpx2.AsyncClient, make_user: MakeUser) -> None:
    first = await sign_in(client, (await make_user("admin")).email, scope="users:read")
    assert (await refresh(client, first["refresh_token"])).json()["scope"] == "users:read"


async def test_a_lost_answer_can_be_asked_for_again_for_a_while(
    client: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession
) -> None:
    first = await sign_in(client, (await make_user()).email)
    second, again = [(await refresh(client, first["refresh_token"])).json() for _ in range(2)]
    assert again["refresh_token"] == second["refresh_token"]
    assert await works(client, again)
    await refresh(client, second["refresh_token"])
    assert (await refresh(client, first["refresh_token"])).status_code == 401  # its successor has been used, too
    assert await works(client, second)


async def test_a_replay_ends_the_session(
    client: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession
) -> None:
    user = await make_user()
    other = await sign_in(client, user.email)
    first = await sign_in(client, user.email)
    second = (await refresh(client, first["refresh_token"])).json()
    await age_refresh_tokens(session, used=timedelta(seconds=11))
    replayed = await refresh(client, first["refresh_token"])
    assert (replayed.status_code, replayed.json()["error"]["code"]) == (401, "unauthorized")
    assert not await works(client, second)
    assert (await refresh(client, second["refresh_token"])).status_code == 401
    assert await works(client, other)


async def test_a_replay_ends_the_session_however_old_the_token_is(
    client: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession
) -> None:
    first = await sign_in(client, (await make_user()).email)
    second = (await refresh(client, first["refresh_token"])).json()
    await age_refresh_tokens(session, used=timedelta(days=15), made=timedelta(days=15))
    assert (await refresh(client, first["refresh_token"])).status_code == 401
    assert not await works(client, second)


async def test_what_is_over_is_deleted(app: FastAPI, make_user: MakeUser, session: AsyncSession) -> None:
    user, other = await make_user(), await make_user()
    over = col(UserSession.user_id) == user.id
    await session.exec(update(UserSession).where(over).values(expires_at=utc_now()))
    await session.commit()
    await delete_what_is_over(app.state.database)
    assert (await session.exec(select(UserSession.user_id))).all() == [other.id]


@pytest.mark.parametrize("token", ["", "nonsense", "ä", "x" * 200])
async def test_a_made_up_refresh_token_is_401(client: httpx2.AsyncClient, token: str) -> None:
    assert (await refresh(client, token)).status_code == 401
    assert (await client.post(f"{AUTH}/refresh")).status_code == 401


async def test_refresh_tokens_grow_old(client: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession) -> None:
    first = await sign_in(client, (await make_user()).email)
    await age_refresh_tokens(session, made=timedelta(days=14, seconds=1))
    assert (await refresh(client, first["refresh_token"])).status_code == 401


async def test_sessions_end_for_good(client: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession) -> None:
    first = await sign_in(client, (await make_user()).email)
    await session.exec(update(UserSession).values(expires_at=utc_now()))
    await session.commit()
    assert (await refresh(client, first["refresh_token"])).status_code == 401
    assert not await works(client, first)


async def test_tokens_are_stored_as_hashes(
    client: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession
) -> None:
    first = await sign_in(client, (await make_user()).email)
    second = (await refresh(client, first["refresh_token"])).json()
    rows = [*(await session.exec(select(RefreshToken))).all(), *(await session.exec(select(UserSession))).all()]
    stored = " ".join(f"{row!r} {row.model_dump_json()}" for row in rows)
    for token in (first, second):
        assert token["refresh_token"] not in stored
        assert token["access_token"] not in stored


@asynccontextmanager
async def committed_app(url: str) -> AsyncIterator[FastAPI]:
    """An app on connections of its own, for what happens at once."""
    app = create_app(settings_for(url))
    async with app.router.lifespan_context(app):
        yield app


async def test_of_twenty_refreshes_at_once_one_counts(database_name: str, committed_database_url: str) -> None:
    async with committed_app(committed_database_url) as app, new_client(app) as client:
        email = f"twenty-{time.monotonic_ns()}@example.com"
        await client.post(f"{AUTH}/signup", json={"email": email, "password": PASSWORD})
        first = await sign_in(client, email)
        answers = await asyncio.gather(*(refresh(client, first["refresh_token"]) for _ in range(20)))
        assert {answer.status_code for answer in answers} <= {200, 503}  # 503: SQLite, or the pool, was busy for long
        pairs = {answer.json()["refresh_token"] for answer in answers if answer.status_code == 200}
        assert len(pairs) == 1
        async with app.state.database.session() as session:
            mine = select(UserSession.id).join(User).where(User.email == email)
            family = select(RefreshToken).where(col(RefreshToken.session_id).in_(mine))
            rows = (await session.exec(family)).all()
        assert [row.used_at is None for row in sorted(rows, key=lambda row: row.id or 0)] == [False, True]
        assert (await refresh(client, pairs.pop())).status_code == 200


async def test_people_who_come_at_once_do_not_disturb_each_other(committed_database_url: str) -> None:
    """Signing up and in deletes and adds rows beside those of others; MySQL's default locks the gaps between them."""
    async with committed_app(committed_database_url) as app, new_client(app) as client:
        forms = [{"username": f"{time.monotonic_ns()}-{n}@example.com", "password": PASSWORD} for n in range(10)]
        bodies = [{"email": form["username"], "password": PASSWORD} for form in forms]
        signed_up = await asyncio.gather(*(client.post(f"{AUTH}/signup", json=body) for body in bodies))
        assert [answer.status_code for answer in signed_up] == [201] * 10
        for _ in range(2):
            signed_in = await asyncio.gather(*(client.post(f"{AUTH}/token", data=form) for form in forms))
            assert [answer.status_code for answer in signed_in] == [200] * 10


async def test_refreshing_and_signing_out_at_once_do_not_wait_for_each_other(committed_database_url: str) -> None:
    async with committed_app(committed_database_url) as app, new_client(app) as client:
        email = f"both-{time.monotonic_ns()}@example.com"
        await client.post(f"{AUTH}/signup", json={"email": email, "password": PASSWORD})
        for _ in range(5):
            token = await sign_in(client, email)
            headers = {"Authorization": f"Bearer {token['access_token']}"}
            await client.get(f"{AUTH}/me", headers=headers)
            out, again = await asyncio.gather(
                client.post(f"{AUTH}/logout", headers=headers), refresh(client, token["refresh_token"])
            )
            assert out.status_code == 204
            assert again.status_code in (200, 401)
            assert not await works(client, token)


# --- by cookie -----------------------------------------------------------------------------------------------------

OURS = {"Sec-Fetch-Site": "same-origin"}


async def test_a_page_refreshes_by_a_cookie_that_no_script_sees(
    client: httpx2.AsyncClient, make_user: MakeUser
) -> None:
    form = {"username": (await make_user()).email, "password": PASSWORD, "refresh_by": "cookie"}
    signed_in = await client.post(f"{AUTH}/token", data=form, headers=OURS)
    assert signed_in.json()["refresh_token"] is None
    _, *attributes = signed_in.headers["set-cookie"].split("; ")
    assert set(attributes) == {"HttpOnly", "SameSite=strict", "Path=/api", "Max-Age=1209600"}
    before = client.cookies["refresh_token"]
    refreshed = await client.post(f"{AUTH}/refresh", headers=OURS)
    assert (refreshed.status_code, refreshed.json()["refresh_token"]) == (200, None)
    assert client.cookies["refresh_token"] != before
    out = await client.post(f"{AUTH}/logout", headers={"Authorization": f"Bearer {refreshed.json()['access_token']}"})
    assert out.status_code == 204
    assert "refresh_token" not in client.cookies


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
    ids=str,
)
async def test_another_sites_page_cannot_use_the_cookie(
    client: httpx2.AsyncClient, make_user: MakeUser, headers: dict[str, str]
) -> None:
    form = {"username": (await make_user()).email, "password": PASSWORD, "refresh_by": "cookie"}
    assert (await client.post(f"{AUTH}/token", data=form, headers=headers)).status_code == 403  # nor set it
    await client.post(f"{AUTH}/token", data=form, headers=OURS)
    assert (await client.post(f"{AUTH}/refresh", headers=headers)).status_code == 403
    assert (await client.post(f"{AUTH}/refresh", headers={"Origin": BASE_URL})).status_code == 200


async def test_pages_of_origins_that_are_named_may_use_it(make_app: Any) -> None:
    app = make_app(USERS__BROWSER_ORIGINS="https://app.example.com")
    await app.state.database.start()
    async with new_client(app) as client:
        ada = {"email": "ada@example.com", "password": PASSWORD}
        await client.post(f"{AUTH}/signup", json=ada)
        await client.post(
            f"{AUTH}/token",
            data={"username": ada["email"], "password": PASSWORD, "refresh_by": "cookie"},
            headers=OURS,
        )
        for origin, status in (("https://app.example.org", 403), ("https://app.example.com", 200)):
            headers = {"Origin": origin, "Sec-Fetch-Site": "same-site"}
            assert (await client.post(f"{AUTH}/refresh", headers=headers)).status_code == status


async def test_signing_in_again_in_a_page_ends_the_session_before(
    client: httpx2.AsyncClient, make_user: MakeUser
) -> None:
    form = {"username": (await make_user()).email, "password": PASSWORD, "refresh_by": "cookie"}
    first = (await client.post(f"{AUTH}/token", data=form, headers=OURS)).json()
    second = (await client.post(f"{AUTH}/token", data=form, headers=OURS)).json()
    assert (await works(client, first), await works(client, second)) == (False, True)
    foreign = await client.post(f"{AUTH}/token", data=form, headers={"Sec-Fetch-Site": "cross-site"})
    assert foreign.status_code == 403
    assert await works(client, second)  # another site's page signs nobody out


# --- lists and ends ------------------------------------------------------------------------------------------------


async def test_people_see_where_they_are_signed_in(client: httpx2.AsyncClient, make_user: MakeUser) -> None:
    user = await make_user()
    await sign_in(client, (await make_user()).email)
    phone = await client.post(
        f"{AUTH}/token", data={"username": user.email, "password": PASSWORD}, headers={"User-Agent": "Phone/1.0"}
    )
    client.headers["Authorization"] = f"Bearer {phone.json()['access_token']}"
    listed = (await client.get(f"{AUTH}/sessions")).json()
    assert len(listed) == 2  # this one, and the one that comes with the account in tests
    current = next(one for one in listed if one["current"])
    assert (current["user_agent"], current["kind"], current["method"]) == ("Phone/1.0", "token", "password")
    assert current["address"] == "127.0.0.1"
    assert [one["current"] for one in listed].count(True) == 1


async def test_a_device_is_signed_out_from_another(client: httpx2.AsyncClient, make_user: MakeUser) -> None:
    user, stranger = await make_user(), await make_user()
    laptop, phone = await sign_in(client, user.email), await sign_in(client, user.email)
    other = await sign_in(client, stranger.email)
    mine = {"Authorization": f"Bearer {laptop['access_token']}"}
    listed = (await client.get(f"{AUTH}/sessions", headers={"Authorization": f"Bearer {phone['access_token']}"})).json()
    current = next(one["id"] for one in listed if one["current"])
    theirs = {"Authorization": f"Bearer {other['access_token']}"}
    assert (await client.delete(f"{AUTH}/sessions/{current}", headers=theirs)).status_code == 404
    assert await works(client, phone)
    assert (await client.delete(f"{AUTH}/sessions/{current}", headers=mine)).status_code == 204
    assert not await works(client, phone)
    assert (await refresh(client, phone["refresh_token"])).status_code == 401
    assert await works(client, laptop)
    assert (await client.delete(f"{AUTH}/sessions/{current}", headers=mine)).status_code == 404


async def test_signing_out_ends_this_session_only(client: httpx2.AsyncClient, make_user: MakeUser) -> None:
    user = await make_user()
    laptop, phone = await sign_in(client, user.email), await sign_in(client, user.email)
    out = await client.post(f"{AUTH}/logout", headers={"Authorization": f"Bearer {laptop['access_token']}"})
    assert out.status_code == 204
    assert not await works(client, laptop)
    assert await works(client, phone)


async def test_signing_out_everywhere_includes_the_console(
    client: httpx2.AsyncClient, make_user: MakeUser, console: Console
) -> None:
    staff = await make_user("staff")
    browser = await console(staff.email)
    laptop, phone = await sign_in(client, staff.email), await sign_in(client, staff.email)
    mine = {"Authorization": f"Bearer {laptop['access_token']}"}
    assert (await client.post(f"{AUTH}/logout-everywhere", headers=mine)).status_code == 204
    assert not await works(client, laptop)
    assert not await works(client, phone)
    assert (await browser.get("/admin/")).status_code in (302, 303)


async def test_a_new_password_signs_every_other_device_out(client: httpx2.AsyncClient, make_user: MakeUser) -> None:
    user = await make_user()
    laptop, phone = await sign_in(client, user.email), await sign_in(client, user.email)
    client.headers["Authorization"] = f"Bearer {laptop['access_token']}"
    change = {"current_password": "not the present one", "new_password": NEW_PASSWORD}
    assert (await client.post(f"{AUTH}/password", json=change)).status_code == 401
    change["current_password"] = PASSWORD
    weak = await client.post(f"{AUTH}/password", json=change | {"new_password": "1234567890123"[:9]})
    assert weak.status_code == 422
    assert await works(client, phone)
    assert (await client.post(f"{AUTH}/password", json=change)).status_code == 204
    assert await works(client, laptop)
    assert not await works(client, phone)
    old = await client.post(f"{AUTH}/token", data={"username": user.email, "password": PASSWORD})
    new = await client.post(f"{AUTH}/token", data={"username": user.email, "password": NEW_PASSWORD})
    assert (old.status_code, new.status_code) == (401, 200)


@pytest.mark.parametrize("change", [{"is_active": False}, {"password": NEW_PASSWORD}], ids=str)
async def test_administrators_sign_people_out_by_changing_the_account(
    client: httpx2.AsyncClient, make_user: MakeUser, as_admin: httpx2.AsyncClient, change: dict[str, Any]
) -> None:
    user = await make_user()
    token = await sign_in(client, user.email)
    assert await works(client, token)
    assert (await as_admin.patch(f"/api/v1/users/{user.id}", json=change)).status_code == 200
    assert not await works(client, token)
    assert (await refresh(client, token["refresh_token"])).status_code == 401


async def test_administrators_do_not_change_their_own_password_without_the_present_one(
    make_user: MakeUser, client_for: ClientFor, console: Console
) -> None:
    admin = await make_user("admin")
    answer = await client_for(admin).patch(f"/api/v1/users/{admin.id}", json={"password": NEW_PASSWORD})
    assert answer.status_code == 403
    browser = await console(admin.email)
    form = {"email": admin.email, "role": "admin", "is_active": "y", "password": NEW_PASSWORD}
    refused = await browser.post(f"/admin/user/edit/{admin.id}", data=form)
    assert "with the present one" in refused.text
    assert await console(admin.email)  # with the password as it was


async def test_a_lower_role_works_at_once(
    make_user: MakeUser, client_for: ClientFor, as_admin: httpx2.AsyncClient
) -> None:
    staff = await make_user("staff")
    client = client_for(staff)
    assert (await client.get("/api/v1/users")).status_code == 200
    await as_admin.patch(f"/api/v1/users/{staff.id}", json={"role": "user"})
    assert (await client.get("/api/v1/users")).status_code == 403


async def test_administrators_see_and_end_somebodys_sessions(
    client: httpx2.AsyncClient, make_user: MakeUser, as_admin: httpx2.AsyncClient, as_staff: httpx2.AsyncClient
) -> None:
    user = await make_user()
    token = await sign_in(client, user.email)
    path = f"/api/v1/users/{user.id}/sessions"
    assert len((await as_staff.get(path)).json()) == 2
    assert (await as_staff.delete(path)).status_code == 403
    assert (await as_admin.delete(path)).status_code == 204
    assert (await as_staff.get(path)).json() == []
    assert not await works(client, token)
    assert (await as_admin.get("/api/v1/users/2000000000/sessions")).status_code == 404


async def test_who_is_seen_again_is_noted_some_minutes_exact(
    client: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession, app: FastAPI
) -> None:
    user = await make_user()
    token = await sign_in(client, user.email)
    long_ago = utc_now() - timedelta(minutes=6)
    await session.exec(update(UserSession).values(last_seen_at=long_ago))
    await session.commit()
    assert await works(client, token)
    sessions = select(func.count()).where(UserSession.user_id == user.id, col(UserSession.last_seen_at) > long_ago)
    assert (await session.exec(sessions)).one() == 1


async def test_staff_who_do_nothing_sign_in_to_the_console_again(
    app: FastAPI, console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    browser = await console((await make_user("staff")).email)
    assert (await browser.get("/admin/")).status_code == 200
    await session.exec(update(UserSession).values(last_seen_at=utc_now() - timedelta(minutes=61)))
    await session.commit()
    app.state.principals.forget_all()  # an hour has passed
    assert (await browser.get("/admin/")).status_code in (302, 303)


async def test_whoever_works_in_the_console_is_seen_often_enough_to_stay(
    app: FastAPI,
    console: Console,
    make_user: MakeUser,
    session: AsyncSession,
    environment: Callable[..., None],
    statements: Callable[[], AbstractContextManager[list[str]]],
) -> None:
    """Also where callers are kept for longer than a session may be idle for."""
    app.state.principals.seconds, before = 10_000, app.state.principals.seconds
    try:
        environment(USERS__CONSOLE_IDLE_MINUTES="10")
        browser = await console((await make_user("staff")).email)
        await browser.get("/admin/")
        moments = [moment for moment, one in app.state.principals._known.values() if one.via == "console"]
        assert [0 < moment - time.monotonic() <= 150 for moment in moments] == [True]
        three_minutes_ago = utc_now() - timedelta(minutes=3)
        await session.exec(update(UserSession).values(last_seen_at=three_minutes_ago))
        await session.commit()
        app.state.principals.forget_all()
        with statements() as sent:
            assert (await browser.get("/admin/")).status_code == 200
        assert [one for one in sent if one.startswith("UPDATE sessions SET last_seen_at")]
    finally:
        app.state.principals.seconds = before


# --- other processes -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_other_processes_learn_of_it_within_the_bound(database_name: str) -> None:
    bound = 2.0
    with temporary_database(database_name) as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        engine = create_engine(sync_url(url))
        with SyncSession(engine) as session:
            session.add(User(email="ada@example.com", password_hash=PASSWORD_HASH))
            session.add(User(email="root@example.com", role="admin", password_hash=PASSWORD_HASH))
            session.commit()
        engine.dispose()
        variables = {"DATABASE_URL": url, "SECURITY__PRINCIPAL_CACHE_SECONDS": str(bound)}
        with running_server(**variables) as first, running_server(**variables) as second:

            def token(email: str) -> dict[str, str]:
                form = {"username": email, "password": PASSWORD}
                found = httpx2.post(f"{first}{AUTH}/token", data=form).json()["access_token"]
                return {"Authorization": f"Bearer {found}"}

            ada, root = token("ada@example.com"), token("root@example.com")
            me = f"{second}{AUTH}/me"
            user_id = httpx2.get(me, headers=ada).json()["id"]
            told = time.monotonic()
            change = httpx2.patch(f"{first}/api/v1/users/{user_id}", json={"is_active": False}, headers=root)
            assert change.status_code == 200
            assert httpx2.get(f"{first}{AUTH}/me", headers=ada).status_code == 401
            while httpx2.get(me, headers=ada).status_code != 401:
                assert time.monotonic() - told < bound + 1  # a second for the request itself
                time.sleep(0.05)


def test_the_settings_that_bound_it_are_checked() -> None:
    with pytest.raises(ValueError, match="principal_cache_seconds"):
        Settings(security={"principal_cache_seconds": 301})


@pytest.mark.slow
def test_a_write_after_a_while_does_not_wait_for_itself() -> None:
    """Noting that a session is in use is a write of its own: SQLite lets one transaction write at a time."""
    with temporary_database("sqlite") as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        with running_server(DATABASE_URL=url) as server:
            httpx2.post(f"{server}{AUTH}/signup", json={"email": "ada@example.com", "password": PASSWORD})
            form = {"username": "ada@example.com", "password": PASSWORD}
            token = httpx2.post(f"{server}{AUTH}/token", data=form).json()["access_token"]
            engine = create_engine(sync_url(url))
            with SyncSession(engine) as session:
                session.exec(update(UserSession).values(last_seen_at=utc_now() - timedelta(minutes=6)))
                session.commit()
            engine.dispose()
            headers = {"Authorization": f"Bearer {token}"}
            answer = httpx2.patch(f"{server}{AUTH}/me", json={"full_name": "Ada"}, headers=headers, timeout=20)
            assert answer.status_code == 200


async def test_a_sign_in_under_way_does_not_survive_a_new_password(
    app: FastAPI, client: httpx2.AsyncClient, make_user: MakeUser, as_admin: httpx2.AsyncClient
) -> None:
    """The password is read before the hash is computed, which takes a while."""
    user = await make_user()
    read = await check_password(app.state.database, email=user.email, password=PASSWORD)
    changed = await as_admin.patch(f"/api/v1/users/{user.id}", json={"password": NEW_PASSWORD})
    assert changed.status_code == 200
    with pytest.raises(Unauthorized):
        async with proven(app.state.database, read, method="password") as session:
            await session_begin(session, read, kind="token", method="password", lifetime=timedelta(days=1))
    assert (await as_admin.get(f"/api/v1/users/{user.id}/sessions")).json() == []
