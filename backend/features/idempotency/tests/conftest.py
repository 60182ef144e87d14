"""An app with routes to repeat, on a database where commits stay."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import httpx2
import pytest
from fastapi import FastAPI, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from sqlmodel import col, func, select

from backend.core.auth import Caller
from backend.core.db import Database, Session
from backend.core.errors import Conflict
from backend.features.idempotency.models import IdempotencyKey
from backend.features.users.models import User
from backend.main import create_app
from backend.testing import new_client, session_of, settings_for, token_for

THINGS = "/api/v1/things"


class Thing(BaseModel):
    """What each execution makes one more of: an account of a random address."""

    kind: str
    how: str = ""


class Gate:
    """Lets a test hold a request in its route, and see that it is there."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def pass_through(self) -> None:
        self.reached.set()
        async with asyncio.timeout(20):  # else a request that should not have come here would wait for ever
            await self.open.wait()


def add_routes(app: FastAPI, gate: Gate) -> None:
    @app.post(THINGS, status_code=201)
    async def make(thing: Thing, session: Session, response: Response, _caller: Caller) -> str:
        if thing.how == "held":  # before it writes: SQLite has one writer at a time
            await gate.pass_through()
        email = f"{thing.kind}-{secrets.token_hex(8)}"
        session.add_all(User(email=email, password_hash="") for _ in range(2 if thing.how == "clash" else 1))
        if thing.how != "clash":
            await session.flush()
        if thing.how == "conflict":
            raise Conflict
        if thing.how == "bug":
            raise RuntimeError("a bug")
        response.headers["Location"] = f"{THINGS}/{email}"
        return email

    @app.post(f"{THINGS}/stream")
    async def stream(thing: Thing, session: Session, _caller: Caller) -> StreamingResponse:
        session.add(User(email=f"{thing.kind}-{secrets.token_hex(8)}", password_hash=""))

        async def parts() -> AsyncIterator[bytes]:
            for part in (b"one", b"two"):
                yield part

        return StreamingResponse(parts())


async def account(database: Database) -> User:
    async with database.session() as session:
        user = User(email=f"caller-{secrets.token_hex(8)}", password_hash="")
        session.add(user)
        await session.flush()
        session.add(session_of(user))
        await session.commit()
    return user


@pytest.fixture
async def gate() -> Gate:
    return Gate()


@pytest.fixture
async def committed_app(committed_database_url: str, gate: Gate) -> AsyncIterator[FastAPI]:
    app = create_app(settings_for(committed_database_url))
    add_routes(app, gate)
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def ada(committed_app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """A person whose token is known."""
    user = await account(committed_app.state.database)
    async with new_client(committed_app, headers={"Authorization": f"Bearer {token_for(committed_app, user)}"}) as ada:
        await ada.get("/api/v1/auth/me")
        yield ada


async def made(app: FastAPI, kind: str) -> int:
    """How many things of a kind there are."""
    async with app.state.database.session(reading=True) as session:
        mine = col(User.email).startswith(f"{kind}-")
        return int((await session.exec(select(func.count()).select_from(User).where(mine))).one())


async def keys_of(app: FastAPI, client: httpx2.AsyncClient) -> list[IdempotencyKey]:
    me = (await client.get("/api/v1/auth/me")).json()["id"]
    async with app.state.database.session(reading=True) as session:
        return list((await session.exec(select(IdempotencyKey).where(IdempotencyKey.user_id == me))).all())
