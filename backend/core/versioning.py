"""/api/v1 and /api/v2 from the features' routers: v2 is its own routes plus every v1 route it did not redefine."""

import inspect
import re
from collections.abc import Callable, Iterable

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, APIWebSocketRoute
from starlette.routing import BaseRoute

from backend.core.cache.shortcut import CachedAPIRoute
from backend.core.feature import BadFeature, Registry
from backend.core.routing import ShortRoute


def _keys(route: BaseRoute) -> set[tuple[str, str]]:
    """What a route answers to: its path, whatever its parameters are called, with each of its methods."""
    path = getattr(route, "path", None)
    if path is None:
        raise BadFeature("A feature's router holds another router: put its routes into one")
    path = re.sub(r"\{[^}:]*(:[^}]*)?\}", r"{\1}", path)
    return {(path, method) for method in getattr(route, "methods", None) or ("",)}


def overlay(base: Iterable[BaseRoute], changes: Iterable[BaseRoute]) -> list[BaseRoute]:
    """`changes`, then what `base` has at other paths or methods.

    Including both routers plainly would serve one route and document the other.
    """
    changes = list(changes)
    redefined = {key for route in changes for key in _keys(route)}
    kept = [route for route in base if not _keys(route) <= redefined]
    if halved := [route for route in kept if _keys(route) & redefined]:
        raise BadFeature(f"v2 redefines some methods of one v1 route, but not all: {halved[0]}")
    return [*changes, *kept]


def _operation_id(version: str) -> Callable[[APIRoute], str]:
    return lambda route: f"{version}_{route.name}"


def _routes(routers: Iterable[APIRouter | None]) -> list[BaseRoute]:
    return [route for router in routers if router for route in router.routes]


# How a route was declared: FastAPI keeps each argument under its own name.
ARGUMENTS = tuple(name for name in inspect.signature(APIRoute.__init__).parameters if name != "self")
_placed: dict[tuple[int, str], tuple[BaseRoute, BaseRoute]] = {}  # kept with the original, so that its id stays its


def _at(prefix: str, route: BaseRoute, unique_id: Callable[[APIRoute], str]) -> BaseRoute:
    """The same route under a prefix, made once per process: apps share it.

    `include_router` would put a router into the router: matched twice, its routes made again for every app.
    """
    path = prefix + str(getattr(route, "path", ""))
    key = id(route), path
    if key not in _placed:
        placed: BaseRoute
        if isinstance(route, APIRoute):
            given = {name: getattr(route, name) for name in ARGUMENTS}
            if route.stream_item_type or route.is_sse_stream:  # read from the return annotation again
                del given["response_model"]
            own = type(route) if type(route) is not APIRoute else None
            if own and hasattr(route.endpoint, "cached"):
                raise BadFeature(f"{path}: @cached and a route class of your own exclude each other")
            kind = own or (CachedAPIRoute if hasattr(route.endpoint, "cached") else ShortRoute)
            placed = kind(**given | {"path": path, "generate_unique_id_function": unique_id})
        elif isinstance(route, APIWebSocketRoute):
            placed = APIWebSocketRoute(path, route.endpoint, name=route.name, dependencies=route.dependencies)
        elif prefix:
            raise BadFeature(f"Put it outside the API's versions, into `root`: {route}")
        else:
            placed = route
        _placed[key] = route, placed
    return _placed[key][1]


def include(app: FastAPI, registry: Registry) -> None:
    """Serve both versions of the API. Operation ids start with the version: `v1_create_item`."""
    v1 = _routes(feature.v1 for feature in registry.features)
    v2 = overlay(v1, _routes(feature.v2 for feature in registry.features))
    root = _routes(feature.root for feature in registry.features)
    app.router.routes += [_at("/api/v1", route, _operation_id("v1")) for route in v1]
    app.router.routes += [_at("/api/v2", route, _operation_id("v2")) for route in v2]
    app.router.routes += [_at("", route, lambda route: route.name) for route in root]
