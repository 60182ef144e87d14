"""Access tokens: what they say, which ones are refused, and what a caller known already costs."""

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

from backend.core.config import Settings
from backend.core.errors import Unauthorized
from backend.features.users import tokens
from backend.features.users.models import User
from backend.testing import MakeUser, new_client, sid_of, token_for

Statements = Callable[[], AbstractContextManager[list[str]]]
FIRST, SECOND = "first-secret-key-of-32-bytes-or-more", "second-secret-key-of-32-bytes-or-so"


def forged(app: FastAPI, user: User, **changes: Any) -> dict[str, str]:
    """A token like ours, but for these claims; `key`, `algorithm` and `kid` are not claims."""
    ours, title = app.state.settings.security.keys_for("access tokens")[0], app.state.settings.api.title
    claims = {"sub": str(user.id), "exp": 4102444800, "scope": "users:read", "sid": sid_of(user)}
    claims |= {"iss": title, "aud": title}
    key, algorithm = changes.pop("key", ours), changes.pop("algorithm", "HS256")
    headers = {name: changes.pop(name, value) for name, value in (("kid", tokens.key_id(ours)), ("typ", "at+jwt"))}
    headers = {name: value for name, value in headers.items() if value is not None}
    claims = {name: value for name, value in (claims | changes).items() if value is not None}
    return {"Authorization": f"Bearer {jwt.encode(claims, key, algorithm=algorithm, headers=headers)}"}


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
        {"sid": None},
        {"sid": 7},
        {"sid": "0" * 32},
        {"key": "another secret, as long as ours is"},
        {"algorithm": "HS512"},
        {"kid": None},
        {"kid": "000000000000"},
        {"kid": ["a", "list"]},
        {"typ": "JWT"},
        {"iss": "somebody else"},
        {"iss": None},
        {"aud": "somebody else"},
        {"aud": None},
        {"nbf": 4102444700},
        {"act": 7},
        {"act": {}},
        {"act": {"sub": "abc", "email": "ada@example.com"}},
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


async def test_somebody_elses_session_is_401(app: FastAPI, client: httpx2.AsyncClient, make_user: MakeUser) -> None:
    staff, user = await make_user("staff"), await make_user()
    headers = forged(app, staff, sid=sid_of(user))
    assert (await client.get("/api/v1/users", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer a.b.c", "bearer x", "Basic YTpi", "Bearer é", "Bearer " + "a" * 9000]
)
async def test_odd_authorization_headers_are_401(client: httpx2.AsyncClient, header: str) -> None:
    answer = await client.get("/api/v1/users/me", headers={b"Authorization": header.encode()})
    assert answer.status_code == 401


async def test_alg_none_is_refused(app: FastAPI, client: httpx2.AsyncClient, make_user: MakeUser) -> None:
    admin = await make_user("admin")
    head, body, _ = token_for(app, admin).split(".")
    kid = jwt.get_unverified_header(f"{head}.{body}.")["kid"]
    parts = [
        {"alg": "none", "typ": "at+jwt", "kid": kid},
        {"sub": str(admin.id), "sid": sid_of(admin), "exp": 4102444800},
    ]
    unsigned = ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)
    answer = await client.get("/api/v1/users/me", headers={"Authorization": f"Bearer {unsigned}."})
    assert answer.status_code == 401


def settings_with(environment: Callable[..., None], **variables: str | None) -> Settings:
    environment(**variables)
    return Settings()


def issued(settings: Settings) -> str:
    return tokens.issue(settings, user_id=1, sid="a1", scopes=frozenset({"b", "a"}), lifetime=timedelta(minutes=3))


def test_tokens_say_who_for_what_and_how_long(environment: Callable[..., None]) -> None:
    claims = jwt.get_unverified_claims(issued(settings_with(environment)))
    assert claims["exp"] - claims["iat"] == 180
    assert (claims["sub"], claims["sid"], claims["scope"]) == ("1", "a1", "a b")
    assert claims["jti"]


def test_a_new_secret_key_logs_nobody_out_while_the_old_one_is_kept(environment: Callable[..., None]) -> None:
    old = issued(settings_with(environment, SECURITY__SECRET_KEY=FIRST))
    both = settings_with(environment, SECURITY__SECRET_KEY=SECOND, SECURITY__PREVIOUS_SECRET_KEYS=FIRST)
    assert tokens.read(both, old).sid == tokens.read(both, issued(both)).sid == "a1"
    assert jwt.get_unverified_header(issued(both))["kid"] == tokens.key_id(both.security.keys_for("access tokens")[0])
    only_new = settings_with(environment, SECURITY__SECRET_KEY=SECOND, SECURITY__PREVIOUS_SECRET_KEYS=None)
    with pytest.raises(Unauthorized):
        tokens.read(only_new, old)


async def test_a_caller_known_already_costs_no_statement(as_user: httpx2.AsyncClient, statements: Statements) -> None:
    with statements() as seen:
        assert (await as_user.get("/api/v1/auth/sessions")).status_code == 200
    first = len(seen)
    with statements() as seen:
        assert (await as_user.get("/api/v1/auth/sessions")).status_code == 200
    assert len(seen) == 1, seen  # the list itself
    assert first >= 2


async def test_a_caller_may_be_looked_up_every_time(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(SECURITY__PRINCIPAL_CACHE_SECONDS="0")
    await app.state.database.start()
    async with new_client(app) as client:
        ada = {"email": "ada@example.com", "password": "correct horse battery"}
        await client.post("/api/v1/auth/signup", json=ada)
        form = {"username": ada["email"], "password": ada["password"]}
        token = (await client.post("/api/v1/auth/token", data=form)).json()["access_token"]
        assert (await client.get("/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"})).status_code == 200
    assert app.state.principals.get(token) is None
