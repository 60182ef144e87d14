"""Sign-up, tokens, one's own profile."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from passlib.hash import bcrypt
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.features.users import passwords
from backend.features.users.models import User
from backend.testing import PASSWORD, ROOT, MakeUser, new_client

AUTH = "/api/v1/auth"
ADA = {"email": "ada@example.com", "password": PASSWORD, "full_name": "Ada Lovelace"}
Statements = Callable[[], AbstractContextManager[list[str]]]


async def sign_in(client: httpx2.AsyncClient, email: str, password: str = PASSWORD, **more: str) -> httpx2.Response:
    return await client.post(f"{AUTH}/token", data={"username": email, "password": password, **more})


async def test_sign_up_sign_in_me(client: httpx2.AsyncClient) -> None:
    signed_up = await client.post(f"{AUTH}/signup", json=ADA)
    assert signed_up.status_code == 201
    assert "password" not in signed_up.text
    answer = await sign_in(client, "ADA@example.com")
    assert answer.headers["Cache-Control"] == "no-store"
    token = answer.json()
    assert (token["token_type"], token["expires_in"]) == ("bearer", 900)
    client.headers["Authorization"] = f"Bearer {token['access_token']}"
    for path in (f"{AUTH}/me", "/api/v1/users/me"):
        me = (await client.get(path)).json()
        assert (me["email"], me["role"]) == ("ada@example.com", "user")
        assert me["permissions"] == sorted(token["scope"].split())


async def test_an_address_has_one_account_however_it_is_spelled(client: httpx2.AsyncClient) -> None:
    await client.post(f"{AUTH}/signup", json=ADA)
    again = await client.post(f"{AUTH}/signup", json=ADA | {"email": "Ada@EXAMPLE.com"})
    assert again.status_code == 409
    assert again.json()["error"]["details"] == {"field": "email"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"email": "not an address"},
        {"email": "a" * 250 + "@example.com"},
        {"password": "short"},
        {"password": "aaaaaaaaaaaaaaa"},
        {"password": "my name is Ada, really"},
        {"password": "qwertyuiop12"},
        {"password": "Password123!"},
        {"password": "Lovelace1815"},
        {"password": "mainstay-2026"},
        {"password": "x" * 129},
        {"password": "nul\x00 in a long password"},
        {"full_name": "nul\x00"},
        {"role": "admin"},
        {"is_active": True},
    ],
    ids=str,
)
async def test_sign_up_refuses_bad_values(client: httpx2.AsyncClient, wrong: dict[str, Any]) -> None:
    answer = await client.post(f"{AUTH}/signup", json=ADA | wrong)
    assert answer.status_code == 422
    assert answer.json()["error"]["details"][0]["field"] == f"body.{next(iter(wrong))}"
    assert str(wrong.get("password", "never")) not in answer.text


@pytest.mark.parametrize(
    "password",
    [
        "  blanks before and after  ",
        "only lower case letters here",
        "83479263910574620185",
        "Grüße aus Köln 🙂 und Umgebung",
        "a long one: " + "".join(chr(33 + number * 7 % 90) for number in range(100)),
    ],
)
async def test_good_passwords_may_have_any_characters_and_are_taken_to_the_letter(
    client: httpx2.AsyncClient, password: str
) -> None:
    assert (await client.post(f"{AUTH}/signup", json=ADA | {"password": password})).status_code == 201
    assert (await sign_in(client, ADA["email"], password)).status_code == 200
    for other in (password.strip() + "x", password.swapcase() + " ", f" {password}"):
        assert (await sign_in(client, ADA["email"], other)).status_code == 401


async def test_words_of_ones_own_make_a_password_weak(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(USERS__PASSWORD_WORDS="frobnicator")
    await app.state.database.start()
    async with new_client(app) as client:
        answer = await client.post(f"{AUTH}/signup", json=ADA | {"password": "frobnicator1"})
    assert (answer.status_code, answer.json()["error"]["details"][0]["type"]) == (422, "weak_password")


async def test_sign_up_can_be_closed(make_app: Callable[..., FastAPI]) -> None:
    async with new_client(make_app(USERS__SIGNUP_OPEN="false")) as client:
        assert (await client.post(f"{AUTH}/signup", json=ADA)).status_code == 403


async def test_every_wrong_sign_in_sounds_the_same(client: httpx2.AsyncClient, make_user: MakeUser) -> None:
    active, inactive = await make_user(), await make_user(is_active=False)
    answers = [
        await sign_in(client, active.email, "wrong password"),
        await sign_in(client, inactive.email),
        await sign_in(client, "nobody@example.com"),
        await sign_in(client, "not an address"),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.json()["error"]["message"] for answer in answers}) == 1
    assert all(answer.headers["WWW-Authenticate"] == "Bearer" for answer in answers)


async def test_a_wrong_sign_in_costs_a_hash_whether_or_not_the_account_exists(
    client: httpx2.AsyncClient, make_user: MakeUser, monkeypatch: pytest.MonkeyPatch
) -> None:
    padded: list[str] = []
    nobodys_hash = passwords._nobodys_hash

    def watched() -> str:
        padded.append(nobodys_hash())
        return padded[-1]

    monkeypatch.setattr(passwords, "_nobodys_hash", watched)
    known = await make_user()
    await sign_in(client, known.email, "wrong")
    assert padded == []
    await sign_in(client, "nobody@example.com", "wrong")
    assert [one.split("$")[1] for one in padded] == ["argon2id"]


async def test_a_bcrypt_hash_from_elsewhere_works_and_is_upgraded(
    client: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession
) -> None:
    user = await make_user()
    user.password_hash = bcrypt.using(rounds=4).hash(PASSWORD)
    session.add(user)
    await session.commit()
    assert (await sign_in(client, user.email, "x" * 100)).status_code == 401
    assert (await sign_in(client, user.email)).status_code == 200
    await session.refresh(user)
    assert user.password_hash.startswith("$argon2id$")
    assert (await sign_in(client, user.email)).status_code == 200


async def test_a_token_can_be_asked_to_do_less(client: httpx2.AsyncClient, make_user: MakeUser) -> None:
    admin = await make_user("admin")
    token = (await sign_in(client, admin.email, scope="users:read something:else")).json()
    assert token["scope"] == "users:read"
    client.headers["Authorization"] = f"Bearer {token['access_token']}"
    assert (await client.get("/api/v1/users")).status_code == 200
    refused = await client.post("/api/v1/users", json=ADA)
    assert (refused.status_code, refused.json()["error"]["details"]) == (403, {"missing": ["users:write"]})


async def test_a_token_never_exceeds_what_its_holder_has(client: httpx2.AsyncClient, make_user: MakeUser) -> None:
    user = await make_user()
    token = (await sign_in(client, user.email, scope="users:write")).json()
    client.headers["Authorization"] = f"Bearer {token['access_token']}"
    assert token["scope"] == ""
    assert (await client.post("/api/v1/users", json=ADA)).status_code == 403


async def test_people_change_their_name_but_not_their_role(as_user: httpx2.AsyncClient) -> None:
    for path in (f"{AUTH}/me", "/api/v1/users/me"):
        assert (await as_user.patch(path, json={"full_name": path})).json()["full_name"] == path
        assert (await as_user.patch(path, json={"role": "admin"})).status_code == 422


async def test_me_costs_a_known_caller_no_statement(as_user: httpx2.AsyncClient, statements: Statements) -> None:
    await as_user.get("/api/v1/users/me")
    with statements() as seen:
        assert (await as_user.get("/api/v1/users/me")).status_code == 200
    assert seen == []


@pytest.mark.parametrize("path", [f"{AUTH}/me", "/api/v1/users/me"])
async def test_me_shows_every_change_at_once(
    as_user: httpx2.AsyncClient, as_admin: httpx2.AsyncClient, path: str
) -> None:
    mine = (await as_user.get(path)).json()
    await as_user.patch(path, json={"full_name": "Ada"})
    assert (await as_user.get(path)).json()["full_name"] == "Ada"
    await as_admin.patch(f"/api/v1/users/{mine['id']}", json={"full_name": "Ada L."})
    assert (await as_user.get(path)).json()["full_name"] == "Ada L."
    await as_admin.patch(f"/api/v1/users/{mine['id']}", json={"role": "staff"})
    found = (await as_user.get(path)).json()
    assert found["role"] == "staff"
    assert set(found["permissions"]) > set(mine["permissions"])


async def test_accounts_are_stored_with_a_hash(client: httpx2.AsyncClient, session: AsyncSession) -> None:
    await client.post(f"{AUTH}/signup", json=ADA)
    user = (await session.exec(select(User).where(User.email == ADA["email"]))).one()
    assert user.password_hash.startswith("$argon2id$v=19$")
    assert PASSWORD not in user.password_hash
    assert user.password_hash not in repr(user)


@pytest.mark.slow
def test_a_hash_costs_what_rfc_9106_recommends() -> None:
    """In a process of its own, as tests make theirs cheaper."""
    code = "from backend.features.users.passwords import CONTEXT; print(CONTEXT.hash('x'))"
    made = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert made.stdout.startswith("$argon2id$v=19$m=65536,t=3,p=1$")
