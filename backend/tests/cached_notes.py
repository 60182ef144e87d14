"""A table of one note with cached routes on it, for tests of the cache. Callers say who they are, and are believed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any

import httpx2
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from pydantic import BaseModel
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import HTTPConnection

from backend.core.auth import Principal, Rank, requires
from backend.core.cache import Cache, cached, cached_result, invalidate
from backend.core.db import Session
from backend.core.errors import NotFound
from backend.core.feature import Feature
from backend.testing import new_client

Reader = Annotated[Principal, requires("notes:read")]


async def _pause(app: FastAPI, gate: str) -> None:
    app.state.held += 1
    await app.state.gates[gate].wait()


async def read_before(connection: HTTPConnection, session: Session) -> None:
    """What a dependency may have read in the request's session before the route is asked."""
    if (gate := connection.headers.get("x-gate-before")) is not None:
        await session.exec(text("SELECT version FROM notes"))  # type: ignore[call-overload]
        await _pause(connection.app, gate)


router = APIRouter(prefix="/notes", dependencies=[Depends(read_before)])


class Note(BaseModel):
    reader: int
    permissions: list[str]
    version: int


async def recognise(connection: HTTPConnection) -> Principal | None:
    who, _, permissions = connection.headers.get("x-caller", "").partition(" ")
    return who_is(int(who), *permissions.split()) if who else None


def who_is(number: int, *permissions: str) -> Principal:
    return Principal(id=number, name=f"Caller {number}", rank=Rank.USER, permissions=frozenset(permissions))


def as_caller(number: int, *permissions: str) -> dict[str, str]:
    """The headers of a caller who may read, and whatever else is said."""
    return {"X-Caller": " ".join((str(number), "notes:read", *permissions))}


async def _read(request: Request, session: AsyncSession, caller: Principal | None) -> Note:
    """Reads, and then takes its time if it is told so: what it has may be outdated by the time it goes out."""
    state = request.app.state
    version = (await session.exec(text("SELECT version FROM notes"))).one()[0]  # type: ignore[call-overload]
    state.executions += 1
    if (gate := request.headers.get("x-gate")) is not None:
        await _pause(request.app, gate)
    return Note(
        reader=caller.id if caller else 0, permissions=sorted(caller.permissions) if caller else [], version=version
    )


@router.get("/mine")
@cached("notes", seconds=60)
async def read_mine(request: Request, session: Session, caller: Reader) -> Note:
    return await _read(request, session, caller)


@router.get("/alike")
@cached("notes", seconds=60, vary="permissions")
async def read_alike(request: Request, session: Session, caller: Reader) -> Note:
    return await _read(request, session, replace(caller, id=0))


@router.get("/all")
@cached("notes", seconds=60, vary="shared", max_age=5)
async def read_all(request: Request, response: Response, session: Session, caller: Reader, q: str = "") -> Note:
    response.headers["X-Asked"] = q or "nothing"
    if q == "cookie":
        response.set_cookie("secret", str(caller.id))
    if q.lower() == "no-store":
        response.headers["Cache-Control"] = q
    if q == "partly":
        response.status_code = 203
    if q == "away":
        raise NotFound
    return await _read(request, session, None)


@router.get("/note/{number}")
@cached("note:{number}", seconds=60, vary="shared")
async def read_one(number: int, request: Request, session: Session, caller: Reader) -> Note:
    return await _read(request, session, None)


@cached_result("notes", seconds=60)
async def counted(session: AsyncSession, *, at_least: int = 0) -> Note:
    version = (await session.exec(text("SELECT version FROM notes"))).one()[0]  # type: ignore[call-overload]
    return Note(reader=at_least, permissions=[], version=version)


@router.post("")
async def write(session: Session, caller: Reader, fail: bool = False) -> int:
    statement = text("UPDATE notes SET version = version + 1 RETURNING version")
    version: int = (await session.exec(statement)).one()[0]  # type: ignore[call-overload]
    invalidate(session, "notes", "note:1")
    if fail:
        raise NotFound
    return version


def add_notes(app: FastAPI) -> FastAPI:
    app.include_router(router)
    feature = Feature(name="notes", summary="Notes", authenticators=(recognise,))
    app.state.registry = replace(app.state.registry, features=(*app.state.registry.features, feature))
    app.state.executions, app.state.held = 0, 0
    app.state.gates = {}
    return app


@asynccontextmanager
async def running(app: FastAPI, *, create: bool = True) -> AsyncIterator[httpx2.AsyncClient]:
    """The app with the table, and a client of it."""
    add_notes(app)
    async with app.router.lifespan_context(app), new_client(app) as client:
        if create:
            async with app.state.database.engine.begin() as connection:
                await connection.execute(text("CREATE TABLE notes (version INTEGER)"))
                await connection.execute(text("INSERT INTO notes VALUES (1)"))
        yield client


async def begin_anew(app: FastAPI) -> None:
    """As it was when it started."""
    async with app.state.database.session() as session:
        await session.exec(text("UPDATE notes SET version = 1"))
        await session.commit()
    cache_of(app).clear()
    app.state.executions, app.state.held = 0, 0


async def until(condition: Any, *, within: float = 10) -> None:
    """Wait until it holds; TimeoutError when it does not come to hold."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


def cache_of(app: FastAPI) -> Cache:
    cache: Cache = app.state.cache
    return cache
