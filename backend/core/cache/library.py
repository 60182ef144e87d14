"""fastapi-cache2's own types on top of ours, so that its `@cache` is safe here, too. Features use `cached` instead.

Its default key ignores who is calling, its coder makes an error of every entry that is damaged.
"""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from typing import Any

from fastapi_cache import FastAPICache
from fastapi_cache.coder import Coder
from fastapi_cache.types import Backend
from pydantic import TypeAdapter
from pydantic_core import from_json, to_json
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request
from starlette.responses import Response

from backend.core.auth import Principal
from backend.core.cache.keys import caller_key, request_key
from backend.core.cache.local import EVERYTHING
from backend.core.cache.payload import Payload
from backend.core.cache.results import arguments_key
from backend.core.cache.store import Cache
from backend.core.redis import RedisAway

NAMESPACE = "fastapi_cache"  # of the statistics
DEFAULT_SECONDS = 60


class LibraryBackend(Backend):
    """Its namespaces are tags of ours: keys of `build_key` begin with them."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache

    @staticmethod
    def _tags(key: str) -> tuple[str, ...]:
        return (key.rpartition(":")[0].rstrip(":"), EVERYTHING)

    async def get_with_ttl(self, key: str) -> tuple[int, bytes | None]:
        left = self.cache.local.seconds_left(key)
        if (payload := self.cache.local.get(key)) is not None:
            return int(left), payload.body
        packed = None
        if self.cache.shared is not None:
            with suppress(RedisAway):
                packed, _ = await self.cache.shared.fetch(key, self._tags(key))
        return (int(packed.seconds_left), packed.payload.body) if packed else (0, None)

    async def get(self, key: str) -> bytes | None:
        return (await self.get_with_ttl(key))[1]

    async def set(self, key: str, value: bytes, expire: int | None = None) -> None:
        if not value or not self.cache.settings.enabled:
            return
        seconds, payload, tags = expire or DEFAULT_SECONDS, Payload(value), self._tags(key)
        self.cache.keep(key, payload, seconds=seconds, tags=tags, namespace=NAMESPACE)
        if self.cache.shared is not None:
            with suppress(RedisAway):
                if lease := await self.cache.shared.lease(key, tags, seconds, 1):
                    await lease.store(payload, seconds=seconds)

    async def clear(self, namespace: str | None = None, key: str | None = None) -> int:
        if key is None:
            return self.cache.invalidate([(namespace or EVERYTHING).rstrip(":")])
        dropped = self.cache.local.drop(key)
        if self.cache.shared is not None:
            with suppress(RedisAway):
                await self.cache.shared.drop(key)
        return dropped


class LibraryCoder(Coder):
    """JSON by pydantic, read back as the declared type. Responses are left uncached."""

    @classmethod
    def encode(cls, value: Any) -> bytes:
        return b"" if isinstance(value, Response) else to_json(value)

    @classmethod
    def decode(cls, value: bytes) -> Any:
        return from_json(value)

    @classmethod
    def decode_as_type(cls, value: bytes, *, type_: Any) -> Any:
        return TypeAdapter(type_).validate_json(value) if type_ else cls.decode(value)


def build_key(
    function: Callable[..., Any],
    namespace: str = "",
    *,
    request: Request | None = None,
    response: Response | None = None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> str:
    """Function, and what it was asked by whom: the request and its caller, or the arguments of a plain function."""
    name = f"{function.__module__}.{function.__qualname__}"
    if request is None:
        told = {str(number): one for number, one in enumerate(args)} | kwargs
        asked = arguments_key({key: one for key, one in told.items() if not isinstance(one, AsyncSession)})
    else:
        asked = request_key(request.scope) or secrets.token_hex()  # not worth keeping: a key that is not asked again
        principal = getattr(request.state, "principal", None)
        asked += f" {caller_key('principal', principal)}" if isinstance(principal, Principal) else ""
    return f"{namespace}:{blake2b(f'{name} {asked}'.encode(), digest_size=20).hexdigest()}"


@contextmanager
def library_uses(cache: Cache) -> Iterator[None]:
    """Set the library up, which does so for a whole process; the first app that runs in it has it.

    RuntimeError when something else has set it up already: the library would ignore us without a word.
    """
    there = FastAPICache._backend  # noqa: SLF001  its getter fails where there is none
    if there is not None and not isinstance(there, LibraryBackend):
        raise RuntimeError(
            f"FastAPICache.init was called with {type(there).__name__}, whose keys may ignore who is calling: "
            "leave it out, the app calls it at its start"
        )
    mine = LibraryBackend(cache)
    FastAPICache.init(mine, prefix="library", expire=DEFAULT_SECONDS, coder=LibraryCoder, key_builder=build_key)
    try:
        yield
    finally:
        if FastAPICache._backend is mine:  # noqa: SLF001  its getter fails where another app was faster
            FastAPICache.reset()
