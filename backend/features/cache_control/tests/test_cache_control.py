"""Figures of the cache, and emptying it, through HTTP."""

import httpx2
import pytest
from fastapi import FastAPI

from backend.core.cache import Cache
from backend.core.cache.payload import Payload

CACHE = "/api/v1/cache"


def keep(app: FastAPI, *tags: str) -> Cache:
    """An entry per tag, each with that as its key."""
    cache: Cache = app.state.cache
    for tag in tags:
        cache.keep(tag, Payload(b"x"), seconds=60, tags=(tag, "*"), namespace="test.entries")
    return cache


async def test_figures_by_namespace(app: FastAPI, as_staff: httpx2.AsyncClient) -> None:
    cache = keep(app, "a", "b")
    hits = cache.local.counts_of("test.entries").hits
    assert cache.local.get("a")
    answer = await as_staff.get(CACHE)
    (found,) = [one for one in answer.json() if one["namespace"] == "test.entries"]
    assert (found["entries"], found["hits"]) == (2, hits + 1)
    assert found["bytes"] > 0
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(("query", "left"), [("", []), ("?tag=a", ["b"]), ("?tag=é", ["a", "b"])])
async def test_emptying_all_or_by_tag(app: FastAPI, as_admin: httpx2.AsyncClient, query: str, left: list[str]) -> None:
    cache = keep(app, "a", "b")
    assert (await as_admin.delete(CACHE + query)).status_code == 204
    assert [key for key in ("a", "b") if cache.local.get(key)] == left


@pytest.mark.parametrize("tag", ["", "x" * 101, "%00", "a b", "*"])
async def test_what_is_no_tag_is_422(as_admin: httpx2.AsyncClient, tag: str) -> None:
    assert (await as_admin.delete(f"{CACHE}?tag={tag}")).status_code == 422


async def test_staff_see_it_and_administrators_empty_it(
    as_user: httpx2.AsyncClient, as_staff: httpx2.AsyncClient
) -> None:
    assert (await as_user.get(CACHE)).status_code == 403
    assert (await as_staff.delete(CACHE)).status_code == 403
