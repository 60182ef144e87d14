"""What the OpenAPI document says beyond FastAPI's own: our error shape everywhere, the permissions as scopes."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse

from backend.core.errors import ErrorBody
from backend.core.feature import Registry

router = APIRouter(include_in_schema=False)


@router.head("/openapi.json")
@router.get("/openapi.json")
async def openapi_document(request: Request) -> JSONResponse:
    """The API's description (OpenAPI 3.1), for people and for client generators.

    Public: it describes the API and holds no data.
    """
    return JSONResponse(request.app.openapi())


ERROR_REF = {"$ref": "#/components/schemas/ErrorBody"}


def _error(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": ERROR_REF}}}


def _document_errors(path: str, operation: dict[str, Any]) -> None:
    responses: dict[str, Any] = operation.setdefault("responses", {})
    if "422" in responses:
        responses["422"] = _error("Some values are not acceptable; `details` has a line per field")
    if operation.get("security"):
        responses["401"] = _error("Not signed in")
        if any(scopes for scheme in operation["security"] for scopes in scheme.values()):
            responses["403"] = _error("Signed in, but not permitted")
    if "{" in path:
        responses.setdefault("404", _error("No such record"))
    for status, response in responses.items():  # statuses that a route declares without a body of its own
        if status >= "400" and "content" not in response:
            response["content"] = {"application/json": {"schema": ERROR_REF}}
    responses["default"] = _error("Any other error")


def customise(app: FastAPI, registry: Registry) -> Callable[[], dict[str, Any]]:
    """A replacement for `app.openapi` that builds the document once."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema:
            return app.openapi_schema
        document = plain()
        root_path = app.state.settings.api.root_path
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        body = ErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= body.pop("$defs", {})
        schemas["ErrorBody"] = body
        for path, operations in document["paths"].items():
            version = path.split("/")[2] if path.startswith("/api/") else ""
            for operation in operations.values():
                _document_errors(path, operation)
                # The docstring's first sentence says more than the function's name, which is FastAPI's own choice.
                if text := operation.get("description"):
                    operation["summary"] = " ".join(text.split()).split(". ")[0].rstrip(".").replace("`", "")
                operation["tags"] = [f"{tag}-{version}" if version else tag for tag in operation.get("tags", ())]
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        for scheme in document["components"].get("securitySchemes", {}).values():
            for flow in scheme.get("flows", {}).values():
                flow["tokenUrl"] = root_path + flow["tokenUrl"]
                flow["scopes"] = {name: one.summary for name, one in sorted(registry.permissions.items())}
        if root_path:
            document["servers"] = [{"url": root_path}]
        return document

    return openapi
