"""How OpenAPI describes the header, on each operation that it works for."""

from typing import Any

from backend.core.db import SAFE_METHODS
from backend.features.idempotency.keys import BARE, HEADER, QUOTED

PARAMETER: dict[str, Any] = {
    "name": HEADER,
    "in": "header",
    "required": False,
    "description": "Any text of yours that is new for each request, such as a UUID. The same request, sent again with "
    "the same key, is not carried out again: its first answer comes again, with `Idempotent-Replayed: true`.",
    "schema": {"type": "string", "pattern": f"^({QUOTED}|{BARE})$", "minLength": 1, "maxLength": 512},
    "example": '"8e03978e-40d5-43dd-bc93-6894a57f9324"',
}
ERRORS = {
    "409": "A request with this `Idempotency-Key` is still being carried out, or its answer was not kept",
    "422": "The `Idempotency-Key` was used for another request",
}
BODY_ERRORS = "Some values are not acceptable; `details` has a line per field"


def describe(path: str, method: str, operation: dict[str, Any]) -> None:
    if not (path.startswith("/api/") and operation["security"]) or method.upper() in SAFE_METHODS:
        return
    operation.setdefault("parameters", []).append(dict(PARAMETER, schema=dict(PARAMETER["schema"])))
    responses = operation["responses"]
    for status, description in ERRORS.items():
        before = BODY_ERRORS if status == "422" else responses.get(status, {}).get("description")
        responses[status] = {"description": f"{before}. {description}" if before else description}
