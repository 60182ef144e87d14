"""Codes shown twice at the same moment, on real connections: one wins, whatever the database."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import col, delete

from backend.features.two_factor.tests.enrolment import enrol, forget_use
from backend.features.users.models import User
from backend.testing import PASSWORD, PASSWORD_HASH, new_client

TOKEN = "/api/v1/auth/token"
ADA = "ada@at-once.example"


@pytest.fixture
async def free_app(make_app: Callable[..., FastAPI], committed_database_url: str) -> AsyncIterator[FastAPI]:
    """An app with a pool of its own; what it commits is removed afterwards."""
    patient = {f"LOCKOUT__{name}_FAILURES": "1000" for name in ("PAIR", "ACCOUNT", "ADDRESS")}  # if that is there
    app = make_app(DATABASE_URL=committed_database_url, **patient)
    async with app.state.database.session() as session:
        session.add(User(email=ADA, password_hash=PASSWORD_HASH))
        await session.commit()
    yield app
    async with app.state.database.session() as session:
        await session.exec(delete(User).where(col(User.email) == ADA))
        await session.commit()


async def at_once(client: httpx2.AsyncClient, code: str) -> list[int]:
    data = {"username": ADA, "password": PASSWORD, "code": code}
    answers = await asyncio.gather(*(client.post(TOKEN, data=data) for _ in range(6)))
    return sorted(answer.status_code for answer in answers)


async def test_of_many_who_show_the_same_code_one_gets_in(free_app: FastAPI) -> None:
    async with new_client(free_app) as client:
        token = (await client.post(TOKEN, data={"username": ADA, "password": PASSWORD})).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        phone, recovery = await enrol(client)
        me = (await client.get("/api/v1/auth/me")).json()["id"]
        for _ in range(3):
            async with free_app.state.database.session() as session:
                await forget_use(session, me)
            assert await at_once(client, phone.soon) == [200] + [401] * 5
        for code in recovery[:3]:
            assert await at_once(client, code) == [200] + [401] * 5
