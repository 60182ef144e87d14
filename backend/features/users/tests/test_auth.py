"""Sign-up, tokens, one's own profile."""

import base64
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from jose import jwt
from passlib.hash import bcrypt
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.config import Settings
from backend.features.users import passwords, tokens
from backend.features.users.models import User
from backend.testing import PASSWORD, ClientFor, MakeUser, new_client

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
    assert (token["token_type"], token["expires_in"]) == ("bearer", 1800)
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


async def test_losing_a_role_and_being_deactivated_work_at_once(
    make_user: MakeUser, client_for: ClientFor, session: AsyncSession
) -> None:
    user = await make_user("staff")
    client = client_for(user)
    assert (await client.get("/api/v1/users")).status_code == 200
    user.role = "user"
    session.add(user)
    await session.commit()
    assert (await client.get("/api/v1/users")).status_code == 403
    user.is_active = False
    session.add(user)
    await session.commit()
    assert (await client.get("/api/v1/users/me")).status_code == 401


def forged(app: FastAPI, user: User, **changes: Any) -> dict[str, str]:
    secret = app.state.settings.security.secret_key.get_secret_value()
    claims = {"sub": str(user.id), "exp": 4102444800, "scope": "users:read"}
    key = changes.pop("key", secret)
    algorithm = changes.pop("algorithm", "HS256")
    claims = {name: value for name, value in (claims | changes).items() if value is not None}
    return {"Authorization": f"Bearer {jwt.encode(claims, key, algorithm=algorithm)}"}


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": 1},
        {"exp": None},
        {"exp": float("inf")},
        {"sub": None},
        {"sub": "abc"},
        {"sub": str(10**30)},
        {"sub": "0"},
        {"scope": 5},
        {"key": "another secret, as long as ours is"},
        {"algorithm": "HS512"},
    ],
    ids=str,
)
async def test_a_token_that_is_not_quite_ours_is_401(
    app: FastAPI, client: httpx2.AsyncClient, make_user: MakeUser, changes: dict[str, Any]
) -> None:
    headers = forged(app, await make_user("staff"), **changes)
    answer = await client.get("/api/v1/users", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_the_untampered_one_works(app: FastAPI, client: httpx2.AsyncClient, make_user: MakeUser) -> None:
    assert (await client.get("/api/v1/users", headers=forged(app, await make_user("staff")))).status_code == 200


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer a.b.c", "bearer x", "Basic YTpi", "Bearer é", "Bearer " + "a" * 9000]
)
async def test_odd_authorization_headers_are_401(client: httpx2.AsyncClient, header: str) -> None:
    answer = await client.get("/api/v1/users/me", headers={b"Authorization": header.encode()})
    assert answer.status_code == 401


async def test_alg_none_is_refused(client: httpx2.AsyncClient, make_user: MakeUser) -> None:
    parts = [{"alg": "none", "typ": "JWT"}, {"sub": str((await make_user("admin")).id), "exp": 4102444800}]
    unsigned = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    answer = await client.get("/api/v1/users/me", headers={"Authorization": f"Bearer {unsigned}."})
    assert answer.status_code == 401


def test_tokens_are_good_for_the_time_asked_for(environment: Callable[..., None]) -> None:
    environment()
    token = tokens.issue(Settings(), user_id=1, scopes=frozenset(), lifetime=timedelta(minutes=3))
    claims = jwt.get_unverified_claims(token)
    assert claims["exp"] - claims["iat"] == 180
    assert claims["jti"]


async def test_people_change_their_name_but_not_their_role(as_user: httpx2.AsyncClient) -> None:
    for path in (f"{AUTH}/me", "/api/v1/users/me"):
        assert (await as_user.patch(path, json={"full_name": path})).json()["full_name"] == path
        assert (await as_user.patch(path, json={"role": "admin"})).status_code == 422


async def test_me_costs_one_statement(as_user: httpx2.AsyncClient, statements: Statements) -> None:
    with statements() as seen:
        assert (await as_user.get("/api/v1/users/me")).status_code == 200
    assert len(seen) == 1, seen


async def test_accounts_are_stored_with_a_hash(client: httpx2.AsyncClient, session: AsyncSession) -> None:
    await client.post(f"{AUTH}/signup", json=ADA)
    user = (await session.exec(select(User).where(User.email == ADA["email"]))).one()
    assert user.password_hash.startswith("$argon2id$v=19$m=65536,")
    assert PASSWORD not in user.password_hash
    assert user.password_hash not in repr(user)
