"""v2 is v1 plus what it redefines, served and documented alike; v1 is frozen."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute, iter_route_contexts

from backend.core import versioning
from backend.core.cache import cached
from backend.core.feature import BadFeature, Feature, Registry
from backend.core.openapi import customise
from backend.testing import new_client
from backend.tests import snapshots


def registry() -> Registry:
    v1, v2 = APIRouter(prefix="/things"), APIRouter(prefix="/things")

    @v1.get("/{number}")
    async def read(number: int) -> str:
        """First version."""
        return f"v1 {number}"

    @v1.post("")
    async def create() -> str:
        return "v1 created"

    @v2.get("/{which}", name="read")
    async def read_better(which: int) -> dict[str, int]:
        """Second version."""
        return {"v2": which}

    @v2.get("/new")
    async def new() -> str:
        return "v2 only"

    return Registry(features=(Feature(name="things", summary="", v1=v1, v2=v2),))


async def test_the_overlay_serves_what_it_documents() -> None:
    app = FastAPI()
    versioning.include(app, registry())
    paths = app.openapi()["paths"]
    async with new_client(app) as client:
        assert (await client.get("/api/v1/things/7")).json() == "v1 7"
        assert (await client.get("/api/v2/things/7")).json() == {"v2": 7}
        assert (await client.post("/api/v2/things")).json() == "v1 created"
        assert (await client.get("/api/v1/things/new")).status_code == 422
    assert paths["/api/v1/things/{number}"]["get"]["description"] == "First version."
    assert paths["/api/v2/things/{which}"]["get"]["description"] == "Second version."
    assert paths["/api/v2/things/{which}"]["get"]["operationId"] == "v2_read"
    assert "/api/v2/things/{number}" not in paths
    assert "/api/v1/things/new" not in paths


def test_a_redefined_route_is_there_once() -> None:
    one = registry().features[0]
    assert one.v1
    assert one.v2
    routes = [route for route in versioning.overlay(one.v1.routes, one.v2.routes) if isinstance(route, APIRoute)]
    assert sorted((route.path, route.endpoint.__name__) for route in routes) == [
        ("/things", "create"),
        ("/things/new", "new"),
        ("/things/{which}", "read_better"),
    ]


def test_a_route_class_of_a_features_own_stays() -> None:
    class Signed(APIRoute):
        """Looks at a signature first, say."""

    v1 = APIRouter(route_class=Signed)

    @v1.post("/hooks")
    async def take() -> None: ...

    app = FastAPI()
    versioning.include(app, Registry(features=(Feature(name="hooks", summary="", v1=v1),)))
    assert {type(route) for route in app.router.routes if getattr(route, "path", "").endswith("/hooks")} == {Signed}

    v1.get("/cached")(cached("hooks", seconds=1, vary="shared")(read_nothing))
    with pytest.raises(BadFeature, match="exclude each other"):
        versioning.include(FastAPI(), Registry(features=(Feature(name="hooks", summary="", v1=v1),)))


async def read_nothing() -> str:
    return ""


WORDS = ("description", "summary", "example", "examples")


def _resolved(node: Any, schemas: dict[str, Any], *, named: bool = False) -> Any:
    """The document without words, and with every reference replaced by what it refers to. `named`: keys are fields."""
    if isinstance(node, dict):
        if reference := node.get("$ref"):
            return _resolved(schemas[reference.rsplit("/", 1)[-1]], schemas)
        return {
            key: _resolved(value, schemas, named=key == "properties")
            for key, value in node.items()
            if named or key not in WORDS
        }
    return [_resolved(value, schemas) for value in node] if isinstance(node, list) else node


async def test_v1_is_frozen(app: FastAPI) -> None:
    """What v1 takes and gives is promised; words may change. Each feature keeps its part of the promise."""
    # what a feature adds to others' operations breaks nobody, and goes with it
    own = Registry(features=tuple(replace(one, openapi=None) for one in app.state.registry.features))
    plain = FastAPI(routes=app.routes)
    plain.state = app.state
    document = customise(plain, own)()
    owners = {
        (route.path_format, method.lower()): route.endpoint.__module__
        for route in iter_route_contexts(app.routes)
        if route.path and route.endpoint
        for method in route.methods or ()
    }
    others = app.state.registry.security_schemes.keys()
    promises: dict[Path, dict[str, Any]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path.startswith("/api/v1"):
                # a further way to say who is calling breaks nobody, and goes with its feature
                security = [one for one in operation["security"] if not one.keys() & others]
                promise = promises.setdefault(snapshots.folder_of(owners[path, method]), {})
                promise[f"{method.upper()} {path}"] = _resolved(
                    operation | {"security": security}, document["components"]["schemas"]
                )
    assert promises
    for folder, promise in promises.items():
        snapshots.check(folder / "v1.json", json.dumps(promise, indent=1, sort_keys=True) + "\n")
