"""Reference (b): FastAPI and asyncpg without an ORM, on the app's own table, with a response model; nobody signs in."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import asyncpg
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, ConfigDict

COLUMNS = "id, name, description, price, stock, owner_id, created_at, updated_at, version"
ONE = f"SELECT {COLUMNS} FROM items WHERE id = $1"  # noqa: S608  a constant
MANY = f"SELECT {COLUMNS} FROM items ORDER BY id DESC LIMIT $1"  # noqa: S608
INSERT = (
    "INSERT INTO items (name, description, price, stock, created_at, updated_at, version)"  # noqa: S608
    f" VALUES ($1, $2, $3, $4, now(), now(), 1) RETURNING {COLUMNS}"
)


class ItemIn(BaseModel):
    model_config = ConfigDict(extra="ignore")
    name: str
    description: str = ""
    price: float
    stock: int = 0


class ItemOut(BaseModel):
    id: int
    name: str
    description: str
    price: int
    stock: int
    owner_id: int | None
    created_at: datetime
    updated_at: datetime
    version: int


def _shown(row: Mapping[str, Any]) -> ItemOut:
    return ItemOut.model_validate(dict(row))


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["BENCH_DATABASE_URL"]) as pool:  # ten connections: its default
        app.state.pool = pool
        yield


app = FastAPI(openapi_url=None, lifespan=_lifespan)


@app.get("/items/{item_id}")
async def one(item_id: int, request: Request) -> ItemOut:
    row = await request.app.state.pool.fetchrow(ONE, item_id)
    if row is None:
        raise HTTPException(404)
    return _shown(row)


@app.get("/items")
async def many(request: Request, limit: int = 100) -> list[ItemOut]:
    return [_shown(row) for row in await request.app.state.pool.fetch(MANY, limit)]


@app.post("/items", status_code=201)
async def create(body: ItemIn, request: Request) -> ItemOut:
    price = round(body.price * 100)
    return _shown(await request.app.state.pool.fetchrow(INSERT, body.name, body.description, price, body.stock))
