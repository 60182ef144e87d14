"""Headers in middleware, as the bytes that ASGI passes on: Starlette's classes decode and encode all at every look.

Names are lower-case bytes, as servers give them and as Starlette's responses have them (ASGI: HTTP connection scope).
"""

from collections.abc import Iterable

from starlette.types import Message, Scope

Header = tuple[bytes, bytes]


def header(scope: Scope, name: bytes) -> str:
    """The first request header of this name; empty when there is none."""
    for one, value in scope["headers"]:
        if one == name:
            return str(value, "latin-1")
    return ""


def add(message: Message, *headers: Header) -> None:
    """Append to the headers of a `http.response.start`, or of another message with headers."""
    message["headers"] = [*message.get("headers", ()), *headers]


def put(message: Message, name: bytes, value: bytes) -> None:
    """Set a header, in the place of any of that name."""
    message["headers"] = [*(one for one in message.get("headers", ()) if one[0] != name), (name, value)]


def add_missing(message: Message, headers: Iterable[Header]) -> None:
    """Append those whose name is not there yet."""
    present = {name for name, _ in message.get("headers", ())}
    add(message, *(one for one in headers if one[0] not in present))
