"""Several at once: on real connections, which the other tests' rolled-back transaction is not."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from alembic import command
from fastapi import FastAPI
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.errors import Unauthorized
from backend.features.lockout.keys import keys
from backend.features.lockout.models import Throttle
from backend.features.users.events import IdentityProven
from backend.features.users.models import User
from backend.main import create_app
from backend.testing import (
    BASE_URL,
    PASSWORD,
    PASSWORD_HASH,
    run_alembic,
    settings_for,
    temporary_database,
)

TOKEN = "/api/v1/auth/token"


@pytest.fixture
async def busy_app(database_name: str) -> AsyncIterator[FastAPI]:
    """The app on a database of its own, with a pool of connections."""
    with temporary_database(database_name) as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        app = create_app(settings_for(url))
        async with app.router.lifespan_context(app):
            yield app


async def new_user(app: FastAPI) -> str:
    async with app.state.database.session() as session:
        user = User(email=f"{secrets.token_hex(4)}@example.com", password_hash=PASSWORD_HASH)
        session.add(user)
        await session.commit()
        return user.email


async def attempt(app: FastAPI, email: str, password: str, address: str = "192.0.2.1", **more: str) -> int:
    transport = httpx2.ASGITransport(app=app, client=(address, 1))
    async with httpx2.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        return (await client.post(TOKEN, data={"username": email, "password": password, **more})).status_code


async def failures(app: FastAPI, email: str, address: str = "192.0.2.1") -> dict[str, int]:
    hashes = [key.hash for key in keys(email, address)]
    async with app.state.database.session(reading=True) as session:
        rows = (await session.exec(select(Throttle).where(col(Throttle.key_hash).in_(hashes)))).all()
    return {row.kind: row.failures for row in rows}


async def test_failures_at_the_same_moment_all_count(busy_app: FastAPI) -> None:
    email = await new_user(busy_app)
    assert await asyncio.gather(*(attempt(busy_app, email, "wrong") for _ in range(4))) == [401] * 4
    assert await failures(busy_app, email) == {"pair": 4, "account": 4, "address": 4}


async def test_many_accounts_and_addresses_at_once_neither_fail_nor_wait_in_a_circle(busy_app: FastAPI) -> None:
    emails = [await new_user(busy_app) for _ in range(6)]
    addresses = [f"192.0.2.{number}" for number in range(3)]
    tries = [(email, address) for email in emails for address in addresses for _ in range(2)]
    answers = await asyncio.gather(*(attempt(busy_app, email, "wrong", address) for email, address in tries))
    assert set(answers) == {401}
    for email in emails:
        assert await failures(busy_app, email, addresses[0]) == {"pair": 2, "account": 6, "address": 12}


async def test_of_guesses_sent_at_once_only_a_few_are_told_apart(busy_app: FastAPI) -> None:
    email = await new_user(busy_app)
    answers = await asyncio.gather(*(attempt(busy_app, email, "wrong") for _ in range(40)))
    assert answers.count(401) <= 8, "five are free, and one or two for each second that passes meanwhile"
    assert set(answers) == {401, 429}


async def test_right_passwords_at_once_all_enter(busy_app: FastAPI) -> None:
    email = await new_user(busy_app)
    assert await asyncio.gather(*(attempt(busy_app, email, PASSWORD) for _ in range(12))) == [200] * 12


async def test_codes_sent_at_once_are_counted_before_they_are_looked_at(busy_app: FastAPI) -> None:
    looked_at: list[str] = []

    async def second_factor(_session: AsyncSession, proven: IdentityProven) -> None:
        looked_at.append(proven.code)
        await asyncio.sleep(0)
        if proven.code != "right":
            raise Unauthorized("This code is wrong")

    info: dict[str, Any] = busy_app.state.database.info
    before = info["handlers"]
    info["handlers"] = {**before, IdentityProven: (*before[IdentityProven], second_factor)}
    email = await new_user(busy_app)
    answers = await asyncio.gather(*(attempt(busy_app, email, PASSWORD, code=f"{number:06}") for number in range(40)))
    assert set(answers) == {401, 429}
    assert len(looked_at) <= 8
    counted = (await failures(busy_app, email))["pair"]
    assert counted == len(looked_at), "each once"
    other = await new_user(busy_app)
    assert await attempt(busy_app, other, PASSWORD, code="right", address="192.0.2.9") == 200
    assert await failures(busy_app, other, "192.0.2.9") == {"pair": 0, "account": 0}
