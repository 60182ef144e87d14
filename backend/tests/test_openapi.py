"""The OpenAPI document tells clients all they need: permissions, errors, summaries, stable operation ids."""

from collections.abc import Callable, Iterator
from typing import Any

import jsonschema_rs
import pytest
from fastapi import FastAPI


@pytest.fixture
def document(make_app: Callable[..., FastAPI]) -> dict[str, Any]:
    return make_app().openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def validator(document: dict[str, Any], schema: dict[str, Any]) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]}, validate_formats=True)


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


def test_errors_have_one_shape_and_an_example(document: dict[str, Any]) -> None:
    accepts = validator(document, {"$ref": "#/components/schemas/ErrorBody"})
    for name, one in operations(document):
        assert {"4XX", "default"} <= set(one["responses"]), name
        for status, response in one["responses"].items():
            if (status == "default" or (status >= "400" and status != "503")) and not name.startswith("HEAD"):
                said = response["content"]["application/json"]
                assert said["schema"] == {"$ref": "#/components/schemas/ErrorBody"}, f"{name} {status}"
                assert said["examples"], f"{name} {status}"
                for example in said["examples"].values():
                    accepts.validate(document["components"]["examples"][example["$ref"].rsplit("/", 1)[-1]]["value"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_body_has_an_example_that_its_schema_accepts(document: dict[str, Any]) -> None:
    """Texts need `examples` in the feature's schemas; numbers, moments and choices have typical ones by themselves."""
    bad = []
    for name, one in operations(document):
        succeeded = [response for status, response in one["responses"].items() if status < "300"]
        for holder in (one.get("requestBody", {}), *succeeded):
            for kind, said in holder.get("content", {}).items():
                if "example" not in said:
                    bad.append(f"{name}: {kind} has no example")
                for error in validator(document, said["schema"]).iter_errors(said.get("example")):
                    place = "/".join(map(str, error.instance_path))
                    bad.append(f"{name}: the example's {place}: {error.message}")
    assert bad == []


def test_head_answers_have_no_body(document: dict[str, Any]) -> None:
    responses = [one["responses"] for name, one in operations(document) if name.startswith("HEAD")]
    assert responses
    assert not [response for some in responses for response in some.values() if "content" in response]


def test_every_operation_says_whether_it_needs_a_token(document: dict[str, Any]) -> None:
    needs = {name: one["security"] for name, one in operations(document)}
    assert needs["POST /api/v1/auth/signup"] == []
    assert {"OAuth2": []} in needs["GET /api/v1/auth/me"]


def test_choices_of_parameters_have_one_type_and_no_parameter_is_null(document: dict[str, Any]) -> None:
    """Or generated clients would have a type per operation, of the same name in v1 and v2."""
    schemas = [parameter["schema"] for _, one in operations(document) for parameter in one.get("parameters", ())]
    assert not [schema for schema in schemas if "enum" in schema or "anyOf" in schema]
    parameters = document["paths"]["/api/v1/users"]["get"]["parameters"]
    assert {one["name"]: one["schema"] for one in parameters}["sort"] == {"$ref": "#/components/schemas/UsersSort"}
    assert document["components"]["schemas"]["UsersSort"]["default"] == "id"


def test_every_tag_in_use_is_described_once(document: dict[str, Any]) -> None:
    used = {tag for _, one in operations(document) for tag in one["tags"]}
    described = [tag["name"] for tag in document["tags"]]
    assert sorted(described) == sorted(used)
    assert all(tag["description"] for tag in document["tags"])


def test_required_permissions_are_scopes_that_exist(document: dict[str, Any]) -> None:
    scopes = document["components"]["securitySchemes"]["OAuth2"]["flows"]["password"]["scopes"]
    used = {
        scope for _, one in operations(document) for need in one.get("security", ()) for scope in need.get("OAuth2", ())
    }
    assert used <= set(scopes)
    assert all(scopes.values())


def test_the_prefix_of_a_proxy_is_the_server(make_app: Callable[..., FastAPI]) -> None:
    assert make_app(API__ROOT_PATH="/shop").openapi()["servers"] == [{"url": "/shop"}]


def test_an_optional_field_of_a_form_may_be_empty(document: dict[str, Any]) -> None:
    """As it is served: a form cannot leave a field's value out in another way."""
    form = {"$ref": "#/components/schemas/Body_v1_create_token"}
    accepts = validator(document, form)
    filled = {"username": "ada@example.com", "password": "secret"}
    accepts.validate({**filled, "grant_type": ""})
    assert not accepts.is_valid({**filled, "grant_type": "implicit"})
