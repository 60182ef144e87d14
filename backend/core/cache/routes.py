"""`@cached`, for routes: a hit is bytes that are there already. No SQL, no validation, no serialization."""

import inspect
from collections.abc import Awaitable, Callable
from functools import cached_property, wraps
from hashlib import blake2b
from typing import Annotated, Any, TypeVar, get_args, get_origin

from fastapi import FastAPI, Response
from pydantic import TypeAdapter
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request

from backend.core.auth import Principal
from backend.core.cache.keys import Vary, caller_key, request_key, shape_of
from backend.core.cache.payload import Headers, Payload
from backend.core.cache.sessions import settled
from backend.core.cache.store import Cache, Wanted

Route = TypeVar("Route", bound=Callable[..., Awaitable[Any]])

REQUEST, RESPONSE = "cached_request", "cached_response"  # parameters that are added where the route has none


class Answer(Response):
    """Bytes and headers that are ready."""

    def __init__(self, body: bytes, headers: Headers, status: int = 200) -> None:
        self.status_code, self.body, self.background = status, body, None
        self.raw_headers = list(headers)  # its own: middleware writes into it


def cached(*tags: str, seconds: float, vary: Vary = "principal", max_age: int = 0) -> Callable[[Route], Route]:
    """Keep a GET route's answers for so many seconds, or until `invalidate` names one of the tags.

    Write it below `@router.get`. Tags may use the route's parameters: `"item:{item_id}"`. Who gets the same answer:
    `principal`, the same caller with the same credential; `permissions`, who may do the same; `shared`, all who may
    call the route. Permissions are checked in any case. `max_age`: seconds for which a client need not ask again.
    """

    def decorate(route: Route) -> Route:
        return CachedRoute(route, tags, seconds=seconds, vary=vary, max_age=max_age).wrapper  # type: ignore[return-value]

    return decorate


class CachedRoute:
    """What is known about a cached route from its signature."""

    def __init__(
        self, route: Callable[..., Awaitable[Any]], tags: tuple[str, ...], *, seconds: float, vary: Vary, max_age: int
    ) -> None:
        self.route, self.tags, self.seconds, self.vary = route, tags, seconds, vary
        self.namespace = f"{route.__module__.split('.')[-2]}.{route.__name__}"
        self.cache_control = f"private, max-age={max_age}" if max_age else "private, no-cache"
        signature = inspect.signature(route)
        if signature.return_annotation is signature.empty:
            raise TypeError(f"{self.namespace}: a cached route says what it returns")
        self.adapter: TypeAdapter[Any] = TypeAdapter(signature.return_annotation)
        self.caller = _parameter(signature, Principal)
        if self.caller is None and vary != "shared":
            raise TypeError(f"{self.namespace}: take the caller, or say vary='shared'")
        self.session = _parameter(signature, AsyncSession)
        self.added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind)
            for name, kind in ((REQUEST, Request), (RESPONSE, Response))
            if _parameter(signature, kind) is None
        ]
        self.request = _parameter(signature, Request) or REQUEST
        self.response = _parameter(signature, Response) or RESPONSE
        self.wrapper = self._wrapped(signature)

    def _wrapped(self, signature: inspect.Signature) -> Callable[..., Awaitable[Response]]:
        @wraps(self.route)
        async def wrapper(**values: Any) -> Response:
            return await self.answer(values)

        parameters = [*signature.parameters.values(), *self.added]
        wrapper.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.cached = self  # type: ignore[attr-defined]
        return wrapper

    async def answer(self, values: dict[str, Any]) -> Response:
        request: Request = values[self.request]
        cache: Cache = request.app.state.cache
        before: Headers = tuple(values[self.response].raw_headers)  # what dependencies say about this very request
        key = self._key(cache, request, values[self.caller] if self.caller else None)
        payload = cache.local.get(key) if key else None
        if payload is None:
            payload = await self._look_up(cache, key, values, before)
        return _conditional(request, payload, before, values[self.response].status_code or 200)

    def known(self, request: Request, caller: Principal) -> Response | None:
        """The answer, if this process has it."""
        cache: Cache = request.app.state.cache
        key = self._key(cache, request, caller)
        payload = cache.local.get(key) if key else None
        return None if payload is None else _conditional(request, payload, (), 200)

    def _key(self, cache: Cache, request: Request, caller: Principal | None) -> str | None:
        """None: neither looked up nor kept."""
        control = request.headers.get("cache-control", "").lower()
        refused = "no-store" in control or "no-cache" in control
        if refused or request.method != "GET" or not cache.settings.enabled:
            return None
        key = request_key(request.scope)
        if key is None:
            return None
        who = "" if caller is None or self.vary == "shared" else caller_key(self.vary, caller)
        return f"{self.shape} {who} {key}"

    @cached_property
    def shape(self) -> str:
        return shape_of(self.adapter)

    async def warm(self, app: FastAPI, path: str, query: str) -> None:
        """Answer a request of nobody's, for what is kept of it. Parameters have their defaults."""
        root = app.state.settings.api.root_path  # as the server puts it before each path
        scope = {"type": "http", "app": app, "method": "GET", "root_path": root, "path": root + path}
        scope |= {"query_string": query.encode(), "headers": [], "scheme": "http", "server": ("localhost", 80)}
        response = Response()
        del response.headers["content-length"]
        async with app.state.database.session(reading=True) as session:
            values = {name: one.default for name, one in inspect.signature(self.route).parameters.items()}
            values |= {self.request: Request(scope), self.response: response}
            values |= {name: value for name, value in ((self.caller, None), (self.session, session)) if name}
            await self.answer(values)

    async def _look_up(self, cache: Cache, key: str | None, values: dict[str, Any], before: Headers) -> Payload:
        async def compute() -> Payload:
            return await self._compute(cache, values, before)

        session: AsyncSession | None = values.get(self.session) if self.session else None
        if key is None or (session is not None and not await settled(session)):
            return await compute()
        tags = tuple(tag.format_map(values) for tag in self.tags)
        return await cache.get(Wanted(key=key, tags=tags, seconds=self.seconds, namespace=self.namespace), compute)

    async def _compute(self, cache: Cache, values: dict[str, Any], before: Headers) -> Payload:
        response: Response = values[self.response]
        added = {one.name for one in self.added}
        result = await self.route(**{name: value for name, value in values.items() if name not in added})
        body = self.adapter.dump_json(self.adapter.validate_python(result), by_alias=True)
        own = tuple(header for header in response.raw_headers if header not in before)
        keep = response.status_code in (None, 200) and not any(map(_forbids, own))
        return Payload(body, (*own, *self._standard(cache, body, own)), keep)

    def _standard(self, cache: Cache, body: bytes, own: Headers) -> Headers:
        """The headers that the route did not set itself."""
        headers = {
            b"content-type": b"application/json",
            b"content-length": str(len(body)).encode(),
            b"cache-control": self.cache_control.encode(),
            b"vary": cache.vary.encode(),
            b"etag": b'"%s"' % blake2b(body, digest_size=12).hexdigest().encode(),
        }
        set_already = {name for name, _ in own} - {b"vary"}  # several of these add up
        return tuple((name, value) for name, value in headers.items() if name not in set_already)


def _conditional(request: Request, payload: Payload, before: Headers, status: int) -> Answer:
    """The answer, or 304 to a client that has it already (RFC 9110 §13.1.2, §15.4.5)."""
    wanted = request.headers.get("if-none-match")
    if wanted is not None and status == 200:
        etag = dict(payload.headers)[b"etag"].decode("latin-1")
        if wanted.strip() == "*" or etag in [tag.strip().removeprefix("W/") for tag in wanted.split(",")]:
            kept = tuple(one for one in payload.headers if one[0] not in (b"content-type", b"content-length"))
            return Answer(b"", before + kept, 304)
    return Answer(payload.body, before + payload.headers, status)


def _forbids(header: tuple[bytes, bytes]) -> bool:
    """Whether a route says by this header that its answer is for one caller alone."""
    name, value = header
    return name == b"set-cookie" or (name == b"cache-control" and b"no-store" in value.lower())


def _parameter(signature: inspect.Signature, kind: type) -> str | None:
    """The name of the parameter of this type."""
    for name, one in signature.parameters.items():
        annotation = get_args(one.annotation)[0] if get_origin(one.annotation) is Annotated else one.annotation
        if isinstance(annotation, type) and issubclass(annotation, kind):
            return name
    return None
