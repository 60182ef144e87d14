"""Every route with an API key of an administrator: with all scopes, and with none; and keys need a recent sign-in."""

from datetime import timedelta

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.events import emit
from backend.core.models import utc_now
from backend.features.users.events import AccountReclaimed
from backend.features.users.models import UserSession
from backend.testing import MakeUser, new_client, token_for
from backend.tests.test_access import SAME_ORIGIN, api_routes, ask

pytestmark = pytest.mark.usefixtures("uses")

KEYS = "/api/v1/api-keys"


async def key_of(client: httpx2.AsyncClient, *scopes: str) -> str:
    made = await client.post(KEYS, json={"name": "for a test", "scopes": list(scopes)})
    assert made.status_code == 201, made.text
    return str(made.json()["key"])


async def test_a_key_opens_what_its_scopes_say_and_nothing_that_is_for_people(
    app: FastAPI, make_user: MakeUser
) -> None:
    token = f"Bearer {token_for(app, await make_user('admin'))}"
    async with new_client(app, headers=SAME_ORIGIN | {"Authorization": token}) as admin:
        keys = {"with": await key_of(admin, *app.state.registry.permissions), "without": await key_of(admin)}
        answers: dict[str, dict[str, int]] = {}
        for what, key in keys.items():
            async with new_client(app, headers=SAME_ORIGIN | {"X-API-Key": key}) as service:
                for entry in api_routes(app):
                    answer = await ask(app, entry, service)
                    answers.setdefault(f"{entry.method} {entry.path}", {})[what] = answer.status_code
    assert 500 not in {status for found in answers.values() for status in found.values()}
    document = app.openapi()
    for known, statuses in answers.items():
        method, path = known.split()
        operation = document["paths"].get(path.replace(":int", ""), {}).get(method.lower())
        if operation is None or not operation.get("security"):
            continue
        schemes = [name for alternative in operation["security"] for name in alternative]
        if "APIKeyHeader" not in schemes:
            assert set(statuses.values()) == {403}, known  # passwords, sessions, keys
            continue
        assert statuses["with"] not in (401, 403), known
        needed = next(scopes for alternative in operation["security"] for scopes in alternative.values())
        assert (statuses["without"] == 403) == bool(needed), known


async def test_a_stolen_token_makes_no_key_that_outlives_it(
    app: FastAPI, make_user: MakeUser, session: AsyncSession
) -> None:
    user = await make_user()
    async with new_client(app, headers={"Authorization": f"Bearer {token_for(app, user)}"}) as client:
        made = await client.post(KEYS, json={"name": "in time", "scopes": []})
        await session.exec(update(UserSession).values(created_at=utc_now() - timedelta(minutes=16)))
        await session.commit()
        app.state.principals.forget_all()
        for path in (KEYS, f"{KEYS}/{made.json()['id']}/rotate"):
            refused = await client.post(path, json={"name": "too late", "scopes": []} if path == KEYS else {})
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "sign_in_again")


async def test_keys_go_when_the_account_is_reclaimed(app: FastAPI, make_user: MakeUser, session: AsyncSession) -> None:
    user = await make_user()
    async with new_client(app, headers={"Authorization": f"Bearer {token_for(app, user)}"}) as client:
        key = await key_of(client)
    async with new_client(app, headers={"X-API-Key": key}) as service:
        assert (await service.get("/api/v1/auth/me")).status_code == 200
        await emit(session, AccountReclaimed(user_id=user.id or 0))
        await session.commit()
        assert (await service.get("/api/v1/auth/me")).status_code == 401
