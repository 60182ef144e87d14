"""Under which key an answer is kept: what it depends on, no more, and never less."""

from functools import lru_cache
from hashlib import blake2b
from typing import Any, Literal

import orjson
from pydantic import TypeAdapter
from starlette.types import Scope

from backend.core.auth import Principal

Vary = Literal["principal", "permissions", "shared"]

LONGEST_QUERY = 500  # bytes; nobody asks the same long question twice


def request_key(scope: Scope) -> str | None:
    """Sorted query and path (with the API version in it); None for a request whose answer is not worth keeping.

    The query comes first: it holds no space, whereas a path, decoded as it is, may hold anything.
    """
    query = str(scope["query_string"], "latin-1")
    if len(query) > LONGEST_QUERY:
        return None
    # Names written in different ways may be the same name, whose values then have an order: left as they are.
    if "&" in query and "%" not in query and "+" not in query:
        query = "&".join(sorted(query.split("&"), key=lambda pair: pair.partition("=")[0]))
    return f"{query} {scope['path']}"


def shape_of(adapter: TypeAdapter[Any]) -> str:
    """Another one for every other schema: two versions of the app that run at once do not read each other's answers."""
    return blake2b(orjson.dumps(adapter.json_schema(mode="serialization")), digest_size=8).hexdigest()


@lru_cache(maxsize=10_000)
def caller_key(vary: Vary, principal: Principal) -> str:
    """`principal`: all that is known about the caller, down to the session; `permissions`: those, and the rank."""
    told: list[object] = [int(principal.rank), sorted(principal.permissions)]
    if vary == "principal":
        told += [principal.id, principal.name, principal.via, principal.credential, principal.narrowed]
        told += [principal.signed_in_at, principal.actor]
    return blake2b(repr(told).encode(), digest_size=16).hexdigest()
