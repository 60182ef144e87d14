"""/cache: figures, and emptying it."""

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field, StringConstraints

from backend.core.auth import Principal, requires
from backend.core.cache import Cache

router = APIRouter(prefix="/cache", tags=["cache"])

Reader = Annotated[Principal, requires("cache:read")]
Clearer = Annotated[Principal, requires("cache:clear")]
# Neither spaces nor the tag of everything; \w would be other letters to JavaScript, and so to JSON Schema.
Tag = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x20\x7f*]+$")]


class NamespaceOut(BaseModel):
    """What became of the look-ups of one route or service function, in the process that answers, since it started."""

    namespace: str = Field(examples=["items.read_item"])
    hits: int = Field(description="Answered from this process")
    shared_hits: int = Field(description="Answered from Redis")
    misses: int = Field(description="Computed")
    evictions: int = Field(description="Entries that made room before their time")
    entries: int = Field(description="Entries that this process holds now")
    bytes: int = Field(description="Memory that these take, about")


@router.get("")
async def read_cache(request: Request, response: Response, caller: Reader) -> list[NamespaceOut]:
    """How the cache does, of the process that answers; `/metrics` has the sum of all."""
    cache: Cache = request.app.state.cache
    response.headers["Cache-Control"] = "no-store"
    return [NamespaceOut(namespace=name, **asdict(one)) for name, one in sorted(cache.statistics().items())]


@router.delete("", status_code=204)
async def clear_cache(
    request: Request, caller: Clearer, tag: Annotated[Tag | None, Query(description="Only what has this tag")] = None
) -> None:
    """Forget what is cached, in all processes. What is asked for next is computed anew."""
    cache: Cache = request.app.state.cache
    if tag is None:
        cache.clear()
    else:
        cache.invalidate([tag])
