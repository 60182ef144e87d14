"""fastapi-cache2's own decorator, on top of our backend, coder and key builder."""

from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Annotated

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import HTMLResponse
from fastapi_cache import FastAPICache
from fastapi_cache.backends.inmemory import InMemoryBackend
from fastapi_cache.decorator import cache
from pydantic import BaseModel

from backend.core.auth import Principal, requires
from backend.core.cache.library import LibraryBackend, build_key
from backend.testing import new_client
from backend.tests.cached_notes import add_notes, as_caller, cache_of

Reader = Annotated[Principal, requires("notes:read")]
router = APIRouter(prefix="/library")


class Bill(BaseModel):
    reader: int
    amount: Decimal
    number: int


@router.get("/bill")
@cache(expire=60, namespace="bills")
async def read_bill(request: Request, caller: Reader) -> Bill:
    request.app.state.executions += 1
    return Bill(reader=caller.id, amount=Decimal("1.10"), number=request.app.state.executions)


@router.get("/page", response_model=None)
@cache(expire=60)
async def read_page(caller: Reader) -> HTMLResponse:
    return HTMLResponse(f"<p>{caller.id}</p>")


@pytest.fixture
async def app(make_app: Callable[..., FastAPI]) -> AsyncIterator[FastAPI]:
    app = add_notes(make_app())
    app.include_router(router)
    FastAPICache.reset()  # other apps of this test run have it
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    async with new_client(app) as client:
        yield client


async def test_each_caller_gets_their_own(client: httpx2.AsyncClient) -> None:
    for _ in range(2):
        for number in (1, 2):
            answer = await client.get("/library/bill", headers=as_caller(number))
            assert answer.json() == {"reader": number, "amount": "1.10", "number": number}
    assert (await client.get("/library/bill?x=1", headers=as_caller(1))).json()["number"] == 3


async def test_what_cannot_be_kept_is_answered_all_the_same(client: httpx2.AsyncClient) -> None:
    for number in (1, 2, 1):
        assert (await client.get("/library/page", headers=as_caller(number))).text == f"<p>{number}</p>"


async def test_its_way_to_clear_a_namespace_works(client: httpx2.AsyncClient, app: FastAPI) -> None:
    await client.get("/library/bill", headers=as_caller(1))
    assert await FastAPICache.clear("other") == 0
    assert await FastAPICache.clear("bills") == 1
    assert (await client.get("/library/bill", headers=as_caller(1))).json()["number"] == 2
    (key,) = [key for key in cache_of(app).local._entries if key.startswith("library:bills")]
    assert await FastAPICache.clear(key=key) == 1
    assert await FastAPICache.get_backend().get(key) is None


async def test_no_app_starts_on_a_library_that_somebody_else_has_set_up(make_app: Callable[..., FastAPI]) -> None:
    """By its own defaults, one caller would get what another one was told."""
    app = make_app()
    FastAPICache.reset()
    FastAPICache.init(InMemoryBackend())
    try:
        with pytest.raises(RuntimeError, match=r"FastAPICache\.init was called with InMemoryBackend"):
            async with app.router.lifespan_context(app):
                pytest.fail("it started")
    finally:
        FastAPICache.reset()


async def test_once_it_is_set_up_it_stays_so(client: httpx2.AsyncClient) -> None:
    FastAPICache.init(InMemoryBackend())
    assert isinstance(FastAPICache.get_backend(), LibraryBackend)
    assert FastAPICache.get_key_builder() is build_key
