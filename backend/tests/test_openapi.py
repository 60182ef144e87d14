"""The OpenAPI document tells clients all they need: permissions, errors, summaries, stable operation ids."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi import FastAPI


@pytest.fixture
def document(make_app: Callable[..., FastAPI]) -> dict[str, Any]:
    return make_app().openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_every_operation_is_described_and_tagged(document: dict[str, Any]) -> None:
    bare = [
        name
        for name, one in operations(document)
        if not (one.get("summary") and one.get("description") and one.get("tags"))
    ]
    assert bare == []


def test_operation_ids_are_unique_and_start_with_the_version(document: dict[str, Any]) -> None:
    ids = [one["operationId"] for _, one in operations(document)]
    assert len(ids) == len(set(ids))
    for name, one in operations(document):
        version = name.split(" /api/")[1][:2] if " /api/" in name else ""
        assert one["operationId"].startswith(f"{version}_" if version else ""), name


def test_errors_have_one_shape(document: dict[str, Any]) -> None:
    for name, one in operations(document):
        for status, response in one["responses"].items():
            if status == "default" or (status >= "400" and status != "503"):
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorBody"}, f"{name} {status}"
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_required_permissions_are_scopes_that_exist(document: dict[str, Any]) -> None:
    scopes = document["components"]["securitySchemes"]["OAuth2"]["flows"]["password"]["scopes"]
    used = {scope for _, one in operations(document) for need in one.get("security", ()) for scope in need["OAuth2"]}
    assert used <= set(scopes)
    assert all(scopes.values())


def test_the_prefix_of_a_proxy_is_the_server(make_app: Callable[..., FastAPI]) -> None:
    assert make_app(API__ROOT_PATH="/shop").openapi()["servers"] == [{"url": "/shop"}]
