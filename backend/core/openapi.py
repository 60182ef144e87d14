"""What the OpenAPI document says beyond FastAPI's own: errors in our one shape, permissions as scopes, examples."""

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute, iter_route_contexts

from backend.core.auth import in_person
from backend.core.errors import (
    HTTP_CODES,
    AppError,
    BadRequest,
    Conflict,
    ErrorBody,
    Forbidden,
    NotFound,
    PreconditionFailed,
    TooManyRequests,
    Unauthorized,
    Unavailable,
    Unprocessable,
)
from backend.core.feature import Registry
from backend.core.limits import Limit

router = APIRouter(include_in_schema=False)


@router.head("/openapi.json")
@router.get("/openapi.json")
async def openapi_document(request: Request) -> JSONResponse:
    """The API's description (OpenAPI 3.1), for people and for client generators.

    Public: it describes the API and holds no data.
    """
    return JSONResponse(request.app.openapi())


GUIDE = """
Sign up, then post e-mail address and password to `/api/v1/auth/token` for an access token, and send it as
`Authorization: Bearer …`. Each operation names the permission it needs.

**A second factor**, for those who have one: send its code as `code` with the password, or afterwards to
`/api/v1/auth/second-factor`. "Authorize" on the page `/docs` has no field for it.

**Errors** have one shape: a stable `code` for programs, a `message` for people, `details` where there are some, and the
`request_id` that the server's log has too.

**Limits** show in the headers `RateLimit-Limit`, `RateLimit-Remaining` and `RateLimit-Reset` (seconds). Beyond them the
answer is 429: come back after `Retry-After` seconds.

**Lists** come in slices: follow `next` until it is null. `…/paged` has page numbers and a total instead.

**Edits** that must not overwrite somebody else's send the `ETag` they read as `If-Match`, and get 412 when it is stale.

**Money** is text, such as `"19.99"`. **Moments** are ISO 8601 with a zone; without one they mean UTC.

**v1** is frozen. **v2** is v1 plus what it redefines.
""".strip()

# Of the API as this repository has it; a product of your own has its own.
CONTACT = {"name": "Mainstay"}
LICENSE = {"name": "MIT", "identifier": "MIT"}

VERSIONS = {"v1": "Version 1, frozen.", "v2": "Version 2: version 1 plus what it redefines."}

ERROR_REF = {"$ref": "#/components/schemas/ErrorBody"}
ERRORS: dict[str, type[AppError]] = {
    str(error.status): error
    for error in (
        BadRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        Conflict,
        PreconditionFailed,
        Unprocessable,
        TooManyRequests,
        Unavailable,
    )
}
DETAILS: dict[str, Any] = {
    "403": {"missing": ["items:write"]},
    "412": {"current_version": 3},
    "422": [{"field": "body.name", "message": "Field required", "type": "missing"}],
}
# What any operation may answer: the servers in front and the limits refuse before a route is reached.
REFUSED = {"content_too_large": (HTTP_CODES[413], HTTPStatus(413).phrase)}
FAILED = (AppError.code, Unavailable.code)
# Of every answer where a limit applies; of several, the tightest.
LIMIT_HEADERS = {
    "RateLimit-Limit": "How many requests the limit lets through at once",
    "RateLimit-Remaining": "How many are left for now",
    "RateLimit-Reset": "Seconds until all of them are free again",
    "Retry-After": "Seconds to wait before the next request; only of refusals",
}
WHOLE = {"type": "integer", "minimum": 0}


def _error_example(code: str, message: str, details: Any = None) -> dict[str, Any]:
    error = {"code": code, "message": message} | ({"details": details} if details else {})
    return {"value": {"error": error, "path": "/api/v1/store/items/7", "request_id": "4f7c2a9e51d04c0b"}}


def _error_examples() -> dict[str, Any]:
    """One of each, from the errors themselves; responses refer to them by code."""
    found = {one.code: _error_example(one.code, one.message, DETAILS.get(key)) for key, one in ERRORS.items()}
    others = REFUSED | {AppError.code: (AppError.code, AppError.message)}
    return found | {name: _error_example(code, message) for name, (code, message) in others.items()}


def _error(description: str, *codes: str) -> dict[str, Any]:
    examples = {code: {"$ref": f"#/components/examples/{code}"} for code in codes}
    return {"description": description, "content": {"application/json": {"schema": ERROR_REF, "examples": examples}}}


def _document_errors(path: str, operation: dict[str, Any], *, limited: bool) -> None:
    """Every error that the operation may answer, with an example."""
    responses: dict[str, Any] = operation.setdefault("responses", {})
    errors = {}
    if "422" in responses:
        errors["422"] = "Some values are not acceptable; `details` has a line per field"
    if operation["security"]:
        errors["401"] = "Not signed in"
        if any(scopes for scheme in operation["security"] for scopes in scheme.values()):
            errors["403"] = "Signed in, but not permitted"
    if "{" in path:
        errors.setdefault("404", "No such record")
    # Statuses that a route declares without a body of its own.
    errors |= {
        status: response["description"]
        for status, response in responses.items()
        if status >= "400" and "content" not in response
    }
    for status, description in errors.items():
        responses[status] = _error(description, *([ERRORS[status].code] if status in ERRORS else FAILED))
    if limited:
        headers = {name: {"description": text, "schema": WHOLE} for name, text in LIMIT_HEADERS.items()}
        responses["429"] = {**_error("Too many requests", TooManyRequests.code), "headers": headers}
    responses["4XX"] = _error("Refused before it was looked at, such as for its size", *REFUSED)
    responses["default"] = _error("Any other error", *FAILED)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            yield path, method, operation


def _depends_on(dependant: Dependant, wanted: Callable[[object], bool]) -> bool:
    return any(wanted(one.call) or _depends_on(one, wanted) for one in dependant.dependencies)


def _operations_on(app: FastAPI, wanted: Callable[[object], bool]) -> set[tuple[str | None, str]]:
    """The operations, by path and method, with such a dependency."""
    return {
        (route.path_format, method.lower())
        for route in iter_route_contexts(app.routes)
        if isinstance(route.original_route, APIRoute)
        for method in route.methods or ()
        if _depends_on(route.original_route.dependant, wanted)
    }


def _offer_other_schemes(app: FastAPI, document: dict[str, Any], registry: Registry) -> None:
    """What features recognise besides bearer tokens, as an alternative wherever a caller is needed."""
    document["components"].setdefault("securitySchemes", {}).update(registry.security_schemes)
    closed = _operations_on(app, lambda call: call is in_person)
    for path, method, operation in _operations(document):
        if operation["security"] and (path, method) not in closed:
            operation["security"] += [{name: []} for name in registry.security_schemes]


# What a value is like when its schema gives no example; texts have to give one.
TYPICAL = {"integer": 1, "number": 1.5, "boolean": True, "date-time": "2026-01-31T09:30:00Z"}


def example_of(schema: dict[str, Any], schemas: dict[str, Any]) -> Any:
    """A value that the schema accepts, from the examples of its fields; None for a text without one."""
    if reference := schema.get("$ref"):
        return example_of(schemas[reference.rsplit("/", 1)[-1]], schemas)
    for known in ("examples", "enum"):
        if known in schema:
            return schema[known][0]
    for known in ("const", "default"):
        if known in schema:
            return schema[known]
    if "anyOf" in schema:
        return example_of(schema["anyOf"][0], schemas)
    if schema.get("type") == "object":
        return {name: example_of(one, schemas) for name, one in schema.get("properties", {}).items()}
    if schema.get("type") == "array":
        return [example_of(schema["items"], schemas)]
    return TYPICAL.get(schema.get("format", schema.get("type", "")))


def _give_examples(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """To each body and each required parameter; what a route says itself stays."""
    succeeded = [one for status, one in operation["responses"].items() if status.startswith("2")]
    for holder in (operation.get("requestBody", {}), *succeeded):
        for media in holder.get("content", {}).values():
            if media.pop("itemSchema", None):  # of OpenAPI 3.2: a stream, of which 3.1 knows only that it is text
                media["schema"] = {"type": "string"}
            if media.get("schema") and not media.keys() & {"example", "examples"}:
                media["example"] = example_of(media["schema"], schemas)
    for parameter in operation.get("parameters", ()):
        if parameter["required"] and "example" not in parameter:
            parameter["example"] = example_of(parameter["schema"], schemas)


def _let_form_fields_be_empty(operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """In a form, an optional field without a value counts as left out (FastAPI; for tokens, RFC 6749 §3.2)."""
    media = operation.get("requestBody", {}).get("content", {}).get("application/x-www-form-urlencoded")
    form = schemas[media["schema"]["$ref"].rsplit("/", 1)[-1]] if media else {}
    for name, field in form.get("properties", {}).items():
        for one in (field, *field.get("anyOf", ())):
            if name not in form.get("required", ()) and "pattern" in one and not one["pattern"].endswith("|^$"):
                one["pattern"] += "|^$"


def _without_bodies(operation: dict[str, Any]) -> None:
    """HEAD answers never have one (RFC 9110 §9.3.2): clients would try to read it."""
    for response in operation["responses"].values():
        response.pop("content", None)


def _simplify_parameters(version: str, operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """For generated clients: no null, which a URL or header cannot say, and one type for the same choices."""
    for parameter in operation.get("parameters", ()):
        schema = parameter["schema"]
        match schema.get("anyOf"):
            case [one, {"type": "null"}]:
                del schema["anyOf"]
                schema |= one
        if "enum" in schema:
            name = f"{operation['tags'][0]}_{parameter['name']}".title().replace("_", "")
            named = {key: schema[key] for key in ("type", "enum", "default") if key in schema}
            if schemas.get(name, named) != named:  # v2 has other choices
                name = version.upper() + name
            schemas[name] = named
            parameter["schema"] = {"$ref": f"#/components/schemas/{name}"}


def _tags(document: dict[str, Any], registry: Registry) -> list[dict[str, str]]:
    """The tags in use, described by the feature that each belongs to."""
    summaries = {
        tag: one.summary
        for one in reversed(registry.features)
        for router in (one.v1, one.v2, one.root)
        for route in (router.routes if router else ())
        for tag in getattr(route, "tags", ())
    }
    used = dict.fromkeys(tag for _, _, operation in _operations(document) for tag in operation.get("tags", ()))
    found = []
    for name in used:
        tag, _, version = name.rpartition("-")
        said = (summaries[tag] + ".", VERSIONS[version]) if version in VERSIONS else (summaries[name] + ".",)
        found.append({"name": name, "description": " ".join(said)})
    return found


def customise(app: FastAPI, registry: Registry) -> Callable[[], dict[str, Any]]:
    """A replacement for `app.openapi` that builds the document once."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        document = plain()
        root_path = app.state.settings.api.root_path
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        body = ErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= body.pop("$defs", {})
        schemas["ErrorBody"] = body
        components["examples"] = _error_examples()
        limited = _operations_on(app, lambda call: isinstance(call, Limit))
        for path, method, operation in _operations(document):
            version = path.split("/")[2] if path.startswith("/api/") else ""
            operation.setdefault("security", [])
            registry.describe(path, method, operation)
            _document_errors(path, operation, limited=(path, method) in limited)
            _simplify_parameters(version, operation, schemas)
            _let_form_fields_be_empty(operation, schemas)
            _give_examples(operation, schemas)
            if method == "head":
                _without_bodies(operation)
            # The docstring's first sentence says more than the function's name, which is FastAPI's own choice.
            if text := operation.get("description"):
                operation["summary"] = " ".join(text.split()).split(". ")[0].rstrip(".").replace("`", "")
            operation["tags"] = [f"{tag}-{version}" if version else tag for tag in operation.get("tags", ())]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for scheme in components.get("securitySchemes", {}).values():
            for flow in scheme.get("flows", {}).values():
                flow["tokenUrl"] = root_path + flow["tokenUrl"]
                flow["scopes"] = {
                    name: one.summary for name, one in sorted(registry.permissions.items()) if not one.console
                }
        _offer_other_schemes(app, document, registry)
        document["info"] |= {"description": GUIDE, "contact": CONTACT, "license": LICENSE}
        document["servers"] = [{"url": root_path or "/"}]
        document["tags"] = _tags(document, registry)
        return document

    return openapi
