"""`@cached_result`, for service functions: what they return, kept for all who call them with the same arguments."""

import inspect
from collections.abc import Awaitable, Callable
from decimal import Decimal
from functools import cache as once
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import orjson
from pydantic import BaseModel, TypeAdapter

from backend.core.cache.keys import shape_of
from backend.core.cache.payload import Payload
from backend.core.cache.sessions import settled
from backend.core.cache.store import Cache, Wanted

P = ParamSpec("P")
R = TypeVar("R")
Service = Callable[P, Awaitable[R]]


def cached_result(*tags: str, seconds: float) -> Callable[[Service[P, R]], Service[P, R]]:
    """Keep what an `async def count(session, *, q: str) -> int` returns. Tags may use its arguments: `"item:{id}"`.

    The arguments are the key: pass whatever the result depends on, the caller too where it does. What comes back is a
    copy of the declared type, so no table's row. Only in a session for reading: one that may write sees its own writes.
    """

    def decorate(service: Service[P, R]) -> Service[P, R]:
        name = f"{service.__module__}.{service.__qualname__}"
        namespace = f"{service.__module__.split('.')[-2]}.{service.__name__}"
        signature = inspect.signature(service)
        if signature.return_annotation is signature.empty:
            raise TypeError(f"{name}: a cached result has a declared type")
        adapter: TypeAdapter[R] = TypeAdapter(signature.return_annotation)

        shape = once(lambda: shape_of(adapter))

        @wraps(service)
        async def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            (_, session), *rest = bound.arguments.items()
            cache: Cache | None = session.info.get("cache")
            if cache is None or not cache.settings.enabled or not await settled(session):
                return await service(*args, **kwargs)

            async def compute() -> Payload:
                return Payload(adapter.dump_json(await service(*args, **kwargs)))

            arguments = dict(rest)
            wanted = Wanted(
                key=f"{name} {shape()} {arguments_key(arguments)}",
                tags=tuple(tag.format_map(arguments) for tag in tags),
                seconds=seconds,
                namespace=namespace,
            )
            return adapter.validate_json((await cache.get(wanted, compute)).body)

        return wrapper

    return decorate


def arguments_key(arguments: dict[str, Any]) -> str:
    """TypeError for arguments of which it is not clear when they are the same."""
    return orjson.dumps(arguments, default=_plain, option=orjson.OPT_SORT_KEYS).decode()


def _plain(value: Any) -> Any:
    match value:
        case BaseModel():
            return [type(value).__name__, value.model_dump(mode="json")]
        case set() | frozenset():
            return ["set", sorted(value)]
        case Decimal():
            return ["Decimal", str(value)]
    raise TypeError(f"{type(value).__name__} cannot be part of a key")
