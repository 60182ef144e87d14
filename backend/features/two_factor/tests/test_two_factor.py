"""Second factors by the API: enrolment, sign-in, recovery codes, and who may switch them off."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import pyotp
import pytest
from fastapi import FastAPI
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Principal, Rank
from backend.core.errors import Forbidden
from backend.core.events import emit
from backend.core.models import key_of
from backend.features.two_factor.encryption import Unreadable, decrypted
from backend.features.two_factor.models import RecoveryCode, TotpSecret
from backend.features.two_factor.tests.enrolment import TOTP, begin, enrol, forget_use, stored
from backend.features.users.events import AccountReclaimed, PermissionsAsked
from backend.features.users.models import User, UserSession
from backend.features.users.passwords import UNUSABLE
from backend.features.users.service import may_manage
from backend.testing import PASSWORD, ClientFor, MakeUser, new_client

TOKEN = "/api/v1/auth/token"
SECOND = "/api/v1/auth/second-factor"


def error(answer: httpx2.Response) -> str:
    return str(answer.json()["error"]["code"])


async def sign_in(client: httpx2.AsyncClient, user: User, **fields: str) -> httpx2.Response:
    return await client.post(TOKEN, data={"username": user.email, "password": PASSWORD, **fields})


async def pending(client: httpx2.AsyncClient, user: User) -> str:
    answer = await sign_in(client, user)
    assert (answer.status_code, error(answer)) == (401, "second_factor_required")
    return str(answer.json()["error"]["details"]["pending"])


# --- enrolment -----------------------------------------------------------------------------------------------------


async def test_enrolment_gives_secret_uri_and_picture_and_changes_nothing_yet(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor
) -> None:
    user = await make_user()
    mine = client_for(user)
    answer = await mine.post(TOTP, json={"password": PASSWORD})
    body = answer.json()
    assert answer.headers["Cache-Control"] == "no-store"
    assert pyotp.parse_uri(body["uri"]).secret == body["secret"]
    assert pyotp.parse_uri(body["uri"]).name == user.email
    assert len(body["secret"]) == 32  # 160 bits in base32: RFC 4226 §4, R6
    assert body["qr_svg"].startswith("<svg")
    assert "style" not in body["qr_svg"]
    assert (await mine.get(TOTP)).json() == {
        "enabled": False,
        "required": False,
        "confirmed_at": None,
        "recovery_codes_left": 0,
    }
    assert (await sign_in(client, user)).status_code == 200


async def test_enrolment_takes_the_password_and_no_other(as_user: httpx2.AsyncClient) -> None:
    refused = await as_user.post(TOTP, json={"password": "not my password"})
    assert refused.status_code == 401
    assert "secret" not in refused.text


async def test_the_code_switches_it_on_and_gives_recovery_codes_once(as_user: httpx2.AsyncClient) -> None:
    phone = await begin(as_user)
    for code in (phone.wrong, "", "12345é", "\N{FULLWIDTH DIGIT ONE}" * 6):
        wrong = await as_user.post(f"{TOTP}/confirm", json={"code": code})
        assert (wrong.status_code, error(wrong)) == (401, "wrong_code")
    right = await as_user.post(f"{TOTP}/confirm", json={"code": f" {phone.now[:3]} {phone.now[3:]}"})
    assert right.headers["Cache-Control"] == "no-store"
    recovery = right.json()["recovery_codes"]
    assert {len(code.replace("-", "")) for code in recovery} == {32}  # 160 bits in base32
    assert len(set(recovery)) == 10
    state = await as_user.get(TOTP)
    assert (state.json()["enabled"], state.json()["recovery_codes_left"]) == (True, 10)
    assert not any(secret in state.text for secret in (phone.secret, *recovery))
    again = await as_user.post(f"{TOTP}/confirm", json={"code": phone.soon})
    assert again.status_code == 409


async def test_switching_it_on_or_off_signs_every_other_device_out(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor
) -> None:
    user = await make_user()
    mine = client_for(user)

    async def works(device: httpx2.Response) -> bool:
        headers = {"Authorization": f"Bearer {device.json()['access_token']}"}
        return (await client.get("/api/v1/auth/me", headers=headers)).status_code == 200

    before = await sign_in(client, user)
    assert await works(before)
    phone, recovery = await enrol(mine)
    assert not await works(before)
    with_code = await sign_in(client, user, code=recovery[0])
    assert await works(with_code)
    await mine.post(f"{TOTP}/disable", json={"password": PASSWORD, "code": phone.soon})
    assert not await works(with_code)
    assert (await mine.get("/api/v1/auth/me")).status_code == 200


async def test_beginning_again_replaces_what_was_not_confirmed_and_nothing_else(as_user: httpx2.AsyncClient) -> None:
    first, second = await begin(as_user), await begin(as_user)
    assert (await as_user.post(f"{TOTP}/confirm", json={"code": first.now})).status_code == 401
    assert (await as_user.post(f"{TOTP}/confirm", json={"code": second.now})).status_code == 200
    assert (await as_user.post(TOTP, json={"password": PASSWORD})).status_code == 409


async def test_without_one_there_is_nothing_to_confirm_renew_or_disable(as_user: httpx2.AsyncClient) -> None:
    for path, body in (("confirm", {}), ("recovery-codes", {}), ("disable", {"password": PASSWORD})):
        answer = await as_user.post(f"{TOTP}/{path}", json={"code": "123456", **body})
        assert answer.status_code == 409, path


async def test_what_is_stored_gives_no_codes(
    make_user: MakeUser, client_for: ClientFor, session: AsyncSession, capfd: pytest.CaptureFixture[str]
) -> None:
    user = await make_user()
    phone, recovery = await enrol(client_for(user))
    row = await stored(session, user.id)
    hashes = (await session.exec(select(RecoveryCode.code_hash).where(RecoveryCode.user_id == user.id))).all()
    assert phone.secret not in row.model_dump_json()
    assert decrypted(row.encrypted, row.user_id) == phone.secret
    with pytest.raises(Unreadable):  # a row copied to another account
        decrypted(row.encrypted, row.user_id + 1)
    assert len(hashes) == 10
    assert not {code.replace("-", "") for code in recovery} & set(hashes)
    assert row.encrypted not in repr(row)
    logged = capfd.readouterr()
    assert not any(secret in logged.out + logged.err for secret in (phone.secret, *recovery))


async def test_deleting_the_account_deletes_secret_and_codes(
    make_user: MakeUser, client_for: ClientFor, as_admin: httpx2.AsyncClient, session: AsyncSession
) -> None:
    user = await make_user()
    await enrol(client_for(user))
    assert (await as_admin.delete(f"/api/v1/users/{user.id}")).status_code == 204
    assert (await session.exec(select(TotpSecret).where(TotpSecret.user_id == user.id))).all() == []
    assert (await session.exec(select(RecoveryCode).where(RecoveryCode.user_id == user.id))).all() == []


# --- sign-in -------------------------------------------------------------------------------------------------------


async def test_a_password_alone_is_not_enough(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor
) -> None:
    user = await make_user()
    phone, _ = await enrol(client_for(user))
    refused = await sign_in(client, user)
    assert (refused.status_code, error(refused)) == (401, "second_factor_required")
    assert "access_token" not in refused.text
    assert (await sign_in(client, user, code=phone.soon)).status_code == 200


async def test_the_second_step_completes_the_first_and_is_good_once(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor, session: AsyncSession
) -> None:
    user = await make_user()
    phone, _ = await enrol(client_for(user))
    step = await pending(client, user)
    for code in (phone.wrong, "12345é"):
        wrong = await client.post(SECOND, json={"pending": step, "code": code})
        assert (wrong.status_code, error(wrong)) == (401, "wrong_code")
    right = await client.post(SECOND, json={"pending": step, "code": phone.soon})
    assert right.status_code == 200, right.text
    headers = {"Authorization": f"Bearer {right.json()['access_token']}"}
    assert (await client.get("/api/v1/auth/me", headers=headers)).json()["email"] == user.email
    await forget_use(session, user.id)
    again = await client.post(SECOND, json={"pending": step, "code": phone.soon})
    assert (again.status_code, error(again)) == (400, "useless_token")


async def test_a_token_for_less_is_for_less_after_the_second_step_too(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor
) -> None:
    user = await make_user("admin")
    phone, _ = await enrol(client_for(user))
    body = {"pending": await pending(client, user), "code": phone.soon, "scope": "users:read console:enter"}
    assert (await client.post(SECOND, json=body)).json()["scope"] == "console:enter users:read"


async def test_a_second_step_without_a_code_asks_for_one_again(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor
) -> None:
    user = await make_user()
    await enrol(client_for(user))
    answer = await client.post(SECOND, json={"pending": await pending(client, user), "code": " "})
    assert error(answer) == "second_factor_required"


@pytest.mark.parametrize("seconds", [-30, 0, 30])
async def test_codes_of_the_steps_around_are_good(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor, session: AsyncSession, seconds: int
) -> None:
    user = await make_user()
    phone, _ = await enrol(client_for(user))
    while True:
        await forget_use(session, user.id)
        step, code = time.time() // 30, phone.at(seconds)
        answer = await sign_in(client, user, code=code)
        if time.time() // 30 == step:  # else a step ended in between: once more
            break
    assert answer.status_code == 200


@pytest.mark.parametrize("seconds", [-90, 90])
async def test_codes_of_steps_further_off_are_not(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor, session: AsyncSession, seconds: int
) -> None:
    user = await make_user()
    phone, _ = await enrol(client_for(user))
    await forget_use(session, user.id)
    around = {phone.at(step) for step in (-30, 0, 30, 60)}
    assert phone.at(seconds) not in around, "a collision of one in a million"
    assert error(await sign_in(client, user, code=phone.at(seconds))) == "wrong_code"


async def test_a_code_is_good_once(client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor) -> None:
    user = await make_user()
    phone, _ = await enrol(client_for(user))
    code = phone.soon
    assert (await sign_in(client, user, code=code)).status_code == 200
    replayed = await sign_in(client, user, code=code)
    assert (replayed.status_code, error(replayed)) == (401, "wrong_code")


async def test_an_earlier_code_than_the_last_one_used_is_refused(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor
) -> None:
    user = await make_user()
    phone, _ = await enrol(client_for(user))
    before = phone.now
    assert (await sign_in(client, user, code=phone.soon)).status_code == 200
    assert error(await sign_in(client, user, code=before)) == "wrong_code"


@pytest.mark.parametrize("code", ["", " ", "12345", "1234567", "١٢٣٤٥٦", "\x00", "' OR 1=1 --", "é" * 64])
async def test_what_is_no_code_is_refused(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor, code: str
) -> None:
    user = await make_user()
    await enrol(client_for(user))
    assert (await sign_in(client, user, code=code)).status_code == 401


async def test_a_wrong_password_does_not_use_the_code_up(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor
) -> None:
    user = await make_user()
    phone, recovery = await enrol(client_for(user))
    for code in (phone.soon, recovery[0]):
        assert error(await sign_in(client, user, password="wrong", code=code)) == "unauthorized"
        assert (await sign_in(client, user, code=code)).status_code == 200


# --- recovery codes ------------------------------------------------------------------------------------------------


async def test_a_recovery_code_is_good_once(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor
) -> None:
    user = await make_user()
    _, recovery = await enrol(client_for(user))
    spellings = [recovery[0], recovery[1].upper(), recovery[2].replace("-", " ")]
    for code in spellings:
        assert (await sign_in(client, user, code=code)).status_code == 200
        assert error(await sign_in(client, user, code=code)) == "wrong_code"
    assert (await client_for(user).get(TOTP)).json()["recovery_codes_left"] == 7


async def test_a_recovery_code_of_somebody_else_is_worthless(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor
) -> None:
    ada, grace = await make_user(), await make_user()
    await enrol(client_for(ada))
    _, recovery = await enrol(client_for(grace))
    assert error(await sign_in(client, ada, code=recovery[0])) == "wrong_code"
    assert (await sign_in(client, grace, code=recovery[0])).status_code == 200


async def test_new_recovery_codes_replace_the_earlier_ones(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor
) -> None:
    user = await make_user()
    phone, old = await enrol(client_for(user))
    wrong = await client_for(user).post(f"{TOTP}/recovery-codes", json={"code": phone.wrong})
    assert error(wrong) == "wrong_code"
    answer = await client_for(user).post(f"{TOTP}/recovery-codes", json={"code": phone.soon})
    new = answer.json()["recovery_codes"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert len(set(new) - set(old)) == 10
    assert error(await sign_in(client, user, code=old[0])) == "wrong_code"
    assert (await sign_in(client, user, code=new[0])).status_code == 200


# --- switching off -------------------------------------------------------------------------------------------------


async def test_both_factors_switch_it_off(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor, session: AsyncSession
) -> None:
    user = await make_user()
    mine = client_for(user)
    phone, _ = await enrol(mine)
    wrong = {"password": ("wrong", phone.soon), "code": (PASSWORD, phone.wrong)}
    for password, code in wrong.values():
        refused = await mine.post(f"{TOTP}/disable", json={"password": password, "code": code})
        assert refused.status_code == 401
    assert (await mine.get(TOTP)).json()["enabled"]
    off = await mine.post(f"{TOTP}/disable", json={"password": PASSWORD, "code": phone.soon})
    assert off.status_code == 204
    assert (await mine.get(TOTP)).json()["enabled"] is False
    assert (await sign_in(client, user)).status_code == 200
    assert (await session.exec(select(RecoveryCode).where(RecoveryCode.user_id == user.id))).all() == []


async def test_who_lost_the_phone_switches_it_off_with_a_recovery_code(as_user: httpx2.AsyncClient) -> None:
    _, recovery = await enrol(as_user)
    off = await as_user.post(f"{TOTP}/disable", json={"password": PASSWORD, "code": recovery[4]})
    assert off.status_code == 204
    await enrol(as_user)


async def test_an_administrator_resets_it_and_every_session_ends(
    client: httpx2.AsyncClient,
    make_user: MakeUser,
    client_for: ClientFor,
    as_admin: httpx2.AsyncClient,
    session: AsyncSession,
) -> None:
    user = await make_user()
    await enrol(client_for(user))
    path = f"/api/v1/users/{user.id}/totp"
    assert (await as_admin.delete(path)).status_code == 204
    assert (await session.exec(select(UserSession).where(UserSession.user_id == user.id))).all() == []
    assert (await client_for(user).get(TOTP)).status_code == 401
    assert (await sign_in(client, user)).status_code == 200
    assert (await as_admin.delete(path)).status_code == 404


async def test_who_may_not_reset_it(make_user: MakeUser, client_for: ClientFor) -> None:
    admin, staff, user = await make_user("admin"), await make_user("staff"), await make_user()
    await enrol(client_for(admin))
    await enrol(client_for(user))
    own = await client_for(admin).delete(f"/api/v1/users/{admin.id}/totp")
    assert own.status_code == 403  # a stolen token shall not be enough
    assert (await client_for(staff).delete(f"/api/v1/users/{user.id}/totp")).status_code == 403
    assert (await client_for(user).delete(f"/api/v1/users/{user.id}/totp")).status_code == 403


# --- required for staff --------------------------------------------------------------------------------------------


async def test_staff_without_one_hold_what_an_ordinary_account_holds_until_they_have_one(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor, environment: Callable[..., None]
) -> None:
    environment(TWO_FACTOR__REQUIRED_FOR_STAFF="true")
    admin, user = await make_user("admin"), await make_user()
    mine = client_for(admin)
    ordinary = set((await client_for(user).get("/api/v1/auth/me")).json()["permissions"])
    held = set((await mine.get("/api/v1/auth/me")).json()["permissions"])
    assert held == ordinary | {"console:enter"}
    assert (await mine.get("/api/v1/users")).status_code == 403
    assert (await mine.get(TOTP)).json()["required"]
    assert not (await client_for(user).get(TOTP)).json()["required"]
    phone, _ = await enrol(mine)
    assert (await mine.get("/api/v1/users")).status_code == 200
    refused = await mine.post(f"{TOTP}/disable", json={"password": PASSWORD, "code": phone.soon})
    assert refused.status_code == 409
    assert (await sign_in(client, admin, code=phone.soon)).json()["scope"].count("users:write") == 1


async def test_a_token_got_without_one_gets_its_rights_at_the_next_refresh(
    client: httpx2.AsyncClient, make_user: MakeUser, environment: Callable[..., None]
) -> None:
    environment(TWO_FACTOR__REQUIRED_FOR_STAFF="true")
    staff = await make_user("staff")
    tokens = (await sign_in(client, staff)).json()
    client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
    await enrol(client)
    assert (await client.get("/api/v1/users")).status_code == 403
    tokens = (await client.post("/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})).json()
    client.headers["Authorization"] = f"Bearer {tokens['access_token']}"
    assert (await client.get("/api/v1/users")).status_code == 200


async def test_what_a_role_gives_is_held_back_too(
    app: FastAPI,
    make_user: MakeUser,
    client_for: ClientFor,
    environment: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def give(_session: AsyncSession, event: PermissionsAsked) -> None:
        event.held.add("users:read")

    handlers = app.state.database.info["handlers"]
    monkeypatch.setitem(
        app.state.database.info, "handlers", {**handlers, PermissionsAsked: (give, *handlers[PermissionsAsked])}
    )
    environment(TWO_FACTOR__REQUIRED_FOR_STAFF="true")
    mine = client_for(await make_user())
    assert (await mine.get("/api/v1/users")).status_code == 403
    phone, _ = await enrol(mine)
    assert (await mine.get("/api/v1/users")).status_code == 200
    refused = await mine.post(f"{TOTP}/disable", json={"password": PASSWORD, "code": phone.soon})
    assert refused.status_code == 409


async def test_where_it_is_not_required_staff_do_without(as_staff: httpx2.AsyncClient) -> None:
    assert (await as_staff.get("/api/v1/users")).status_code == 200
    phone, _ = await enrol(as_staff)
    off = await as_staff.post(f"{TOTP}/disable", json={"password": PASSWORD, "code": phone.soon})
    assert off.status_code == 204


# --- the secret key ------------------------------------------------------------------------------------------------

OLD, NEW, LOST = ("an old secret key of 32 bytes", "a new secret key of 32 bytes", "a key that encrypted nothing")
ADA = User(email="ada@example.com", password_hash="")


async def test_a_rotated_secret_key_opens_secrets_and_encrypts_them_anew(
    make_app: Callable[..., FastAPI], tmp_path: Path
) -> None:
    @asynccontextmanager
    async def app_with(key: str, previous: str = "") -> AsyncIterator[tuple[httpx2.AsyncClient, AsyncSession]]:
        keys = {"SECURITY__SECRET_KEY": key, "SECURITY__PREVIOUS_SECRET_KEYS": previous}
        app = make_app(DATABASE_URL=f"sqlite:///{tmp_path}/rotated.db", **keys)
        async with app.state.database.engine.begin() as connection:
            await connection.run_sync(TotpSecret.metadata.create_all)
        async with new_client(app) as client:
            yield client, app.state.database.session()

    async with app_with(OLD) as (client, session):
        await client.post("/api/v1/auth/signup", json={"email": ADA.email, "password": PASSWORD})
        client.headers["Authorization"] = f"Bearer {(await sign_in(client, ADA)).json()['access_token']}"
        phone, recovery = await enrol(client)
        async with session:
            first = (await stored(session, 1)).encrypted
    async with app_with(NEW, previous=OLD) as (client, session):
        assert (await sign_in(client, ADA, code=phone.soon)).status_code == 200
        async with session:
            assert (await stored(session, 1)).encrypted != first
            await forget_use(session, 1)
    async with app_with(NEW) as (client, session):
        assert (await sign_in(client, ADA, code=phone.now)).status_code == 200
        async with session:
            await forget_use(session, 1)
    async with app_with(LOST) as (client, _):
        assert error(await sign_in(client, ADA, code=phone.now)) == "wrong_code"
        assert (await sign_in(client, ADA, code=recovery[0])).status_code == 200


async def test_asking_again_without_a_code_prolongs_nothing(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor
) -> None:
    user = await make_user()
    await enrol(client_for(user))
    first = await pending(client, user)
    again = await client.post(SECOND, json={"pending": first, "code": " "})
    assert (again.status_code, again.json()["error"]["details"]["pending"]) == (401, first)


async def test_a_first_step_does_not_outlive_the_password(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor, as_admin: httpx2.AsyncClient
) -> None:
    user = await make_user()
    phone, _ = await enrol(client_for(user))
    first = await pending(client, user)
    changed = await as_admin.patch(f"/api/v1/users/{user.id}", json={"password": "Nautilus-1954-x"})
    assert changed.status_code == 200
    answer = await client.post(SECOND, json={"pending": first, "code": phone.soon})
    assert (answer.status_code, error(answer)) == (400, "useless_token")


async def test_who_is_held_back_is_not_weaker_for_it(
    make_user: MakeUser, app: FastAPI, session: AsyncSession, environment: Callable[..., None]
) -> None:
    """Else somebody with fewer rights would set their password, sign in as them, and enrol."""
    environment(TWO_FACTOR__REQUIRED_FOR_STAFF="true")
    staff = await make_user("staff")
    declared = frozenset(app.state.registry.permissions)
    weaker = Principal(id=0, name="", rank=Rank.STAFF, permissions=declared - {"users:read"})
    with pytest.raises(Forbidden):
        await may_manage(session, weaker, staff)
    await may_manage(session, replace(weaker, permissions=declared), staff)


async def test_a_second_factor_goes_when_the_account_is_reclaimed(
    make_user: MakeUser, client_for: ClientFor, session: AsyncSession
) -> None:
    user = await make_user()
    mine = client_for(user)
    await enrol(mine)
    await emit(session, AccountReclaimed(user_id=key_of(user)))
    await session.commit()
    assert not (await mine.get(TOTP)).json()["enabled"]


async def test_who_has_no_password_is_told_to_set_one_first(
    make_user: MakeUser, client_for: ClientFor, session: AsyncSession
) -> None:
    user = await make_user()
    user.password_hash = UNUSABLE
    session.add(user)
    await session.commit()
    answer = await client_for(user).post(TOTP, json={"password": PASSWORD})
    assert (answer.status_code, error(answer)) == (409, "conflict")
