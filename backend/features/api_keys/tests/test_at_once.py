"""What several do at once, on connections of their own."""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
from fastapi import FastAPI

from backend.features.api_keys.uses import Uses
from backend.main import create_app
from backend.testing import PASSWORD, new_client, settings_for

KEYS = "/api/v1/api-keys"
BODY = {"name": "Import", "scopes": []}


@pytest.fixture
async def committed_app(committed_database_url: str, environment: Callable[..., None]) -> AsyncIterator[FastAPI]:
    environment(API_KEYS__PER_PERSON="3")
    app = create_app(settings_for(committed_database_url))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def ada(committed_app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with new_client(committed_app) as client:
        email = f"ada-{secrets.token_hex(4)}@example.com"
        await client.post("/api/v1/auth/signup", json={"email": email, "password": PASSWORD})
        answer = await client.post("/api/v1/auth/token", data={"username": email, "password": PASSWORD})
        client.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        yield client


async def test_the_limit_holds_for_those_who_create_at_once(ada: httpx2.AsyncClient) -> None:
    answers = await asyncio.gather(*(ada.post(KEYS, json=BODY) for _ in range(12)))
    assert Counter(answer.status_code for answer in answers) == {201: 3, 409: 9}
    assert len((await ada.get(KEYS)).json()) == 3


async def test_of_those_who_rotate_a_key_at_once_one_does(ada: httpx2.AsyncClient) -> None:
    key = (await ada.post(KEYS, json=BODY)).json()
    answers = await asyncio.gather(*(ada.post(f"{KEYS}/{key['id']}/rotate") for _ in range(6)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 409: 5}
    assert len((await ada.get(KEYS)).json()) == 2


async def test_processes_that_store_uses_at_once_do_not_hinder_each_other(
    committed_app: FastAPI, ada: httpx2.AsyncClient
) -> None:
    keys = [(await ada.post(KEYS, json=BODY)).json() for _ in range(3)]
    processes = []
    for order in (keys, keys[::-1], keys):
        committed_app.state.api_key_uses = uses = Uses()
        for key in order:
            async with new_client(committed_app, headers={"X-API-Key": key["key"]}) as service:
                await service.get("/api/v1/auth/me")
        processes.append(uses)
    await asyncio.gather(*(uses.store(committed_app.state.database) for uses in processes))
    assert [uses._last for uses in processes] == [{}, {}, {}]  # nothing was put back
    assert all(key["last_used_at"] for key in (await ada.get(KEYS)).json())
