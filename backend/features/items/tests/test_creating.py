"""Creating items as a server does it, where commits stay: on PostgreSQL one statement does it all."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import col, delete, func, select

from backend.core import pool, statements
from backend.core.db import Database
from backend.features.items.models import Item
from backend.features.users.models import User
from backend.main import create_app
from backend.testing import PASSWORD_HASH, new_client, session_of, settings_for, token_for

ITEMS = "/api/v1/store/items"
LAMP = {"name": "Lamp", "price": "19.99", "stock": 3}


@pytest.fixture
async def committed_app(committed_database_url: str) -> AsyncIterator[FastAPI]:
    app: FastAPI = create_app(settings_for(committed_database_url))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def seller(committed_app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    database: Database = committed_app.state.database
    async with database.session() as session:
        user = User(email=f"{secrets.token_hex(8)}@example.com", password_hash=PASSWORD_HASH)
        session.add(user)
        await session.flush()
        session.add(session_of(user))
        await session.commit()
    async with new_client(committed_app, headers={"Authorization": f"Bearer {token_for(committed_app, user)}"}) as who:
        yield who
    async with database.session() as session:
        await session.exec(delete(Item).where(col(Item.owner_id) == user.id))
        await session.delete(user)
        await session.commit()


async def test_it_is_one_statement_and_is_audited(
    committed_app: FastAPI, seller: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    database: Database = committed_app.state.database
    monkeypatch.setattr(pool, "FRESH", 60)  # seconds: a busy machine makes no difference
    sent: list[str] = []
    await seller.post(ITEMS, json=LAMP)  # the caller is known from now on, and a connection has worked
    monkeypatch.setattr(statements, "observers", [*statements.observers, lambda text, *_rest: sent.append(text)])
    answer = await seller.post(ITEMS, json=LAMP)
    if database.family == "postgresql":
        assert len(sent) == 1, sent
    assert answer.status_code == 201
    item = answer.json()
    assert answer.headers["Location"] == f"{ITEMS}/{item['id']}"
    assert (await seller.get(answer.headers["Location"])).json() == item | {"price": "19.99"}
    assert item in (await seller.get(ITEMS)).json()["items"]  # what was cached is not any more
    if "audit" not in {one.name for one in committed_app.state.registry.features}:
        return
    models = pytest.importorskip("backend.features.audit.models")
    async with database.session(reading=True) as session:
        subject = models.AuditEntry.subject_type == "items", models.AuditEntry.subject_id == str(item["id"])
        found = (await session.exec(select(models.AuditEntry).where(*subject).order_by(models.AuditEntry.id))).all()
    entry = found[-1]  # SQLite gives the keys of deleted items to others
    assert len(found) == 1 or database.family == "sqlite"
    assert (entry.action, entry.actor_id, entry.via) == ("items.created", item["owner_id"], "token")
    assert entry.changes["price"] == [None, "19.99"]
    assert entry.request_id == answer.headers.get("X-Request-ID", "")


async def test_many_at_once_each_get_their_own(committed_app: FastAPI, seller: httpx2.AsyncClient) -> None:
    answers = await asyncio.gather(*(seller.post(ITEMS, json=LAMP | {"name": f"Lamp {n}"}) for n in range(40)))
    assert {answer.status_code for answer in answers} == {201}
    found = {answer.json()["id"]: answer.json()["name"] for answer in answers}
    assert sorted(found.values()) == sorted(f"Lamp {n}" for n in range(40))
    async with committed_app.state.database.session(reading=True) as session:
        stored = dict((await session.exec(select(Item.id, Item.name).where(col(Item.id).in_(found)))).all())
        assert stored == found
        everything = select(func.count()).where(col(Item.id).in_(found))
        assert (await session.exec(everything)).one() == 40


async def test_the_same_key_makes_one(seller: httpx2.AsyncClient, committed_app: FastAPI) -> None:
    if "idempotency" not in {one.name for one in committed_app.state.registry.features}:
        pytest.skip("nothing keeps answers")
    key = {"Idempotency-Key": secrets.token_hex(8)}
    first, second = [await seller.post(ITEMS, json=LAMP, headers=key) for _ in range(2)]
    assert (first.status_code, second.status_code) == (201, 201)
    assert first.json() == second.json()
