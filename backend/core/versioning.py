"""/api/v1 and /api/v2 from the features' routers: v2 is its own routes plus every v1 route it did not redefine."""

import re
from collections.abc import Callable, Iterable

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from backend.core.feature import BadFeature, Registry


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


def include(app: FastAPI, registry: Registry) -> None:
    """Serve both versions of the API. Operation ids start with the version: `v1_create_item`."""
    v1 = _routes(feature.v1 for feature in registry.features)
    v2 = overlay(v1, _routes(feature.v2 for feature in registry.features))
    for version, routes in (("v1", v1), ("v2", v2)):
        app.include_router(
            APIRouter(routes=routes),
            prefix=f"/api/{version}",
            generate_unique_id_function=_operation_id(version),
        )
    for feature in registry.features:
        if feature.root:
            app.include_router(feature.root, generate_unique_id_function=lambda route: route.name)
