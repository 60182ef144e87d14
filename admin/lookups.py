"""Suggestions for what refers to a record of another table: `GET /{identity}/lookup?q=ada`."""

from typing import Any

from sqladmin.authentication import login_required
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from backend.core.console import SEARCH_MAX, ConsoleView
from backend.core.console_lookup import LookupField, resolved, suggestions, written
from backend.core.db import MAX_ID, Database


def is_key(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= len(str(MAX_ID)) and 0 < int(text) <= MAX_ID


class Lookups:
    """What the console's forms and filters need to refer to records by name."""

    def view_called(self, identity: str) -> ConsoleView:
        view: ConsoleView = self._find_model_view(identity)  # type: ignore[attr-defined]
        return view

    async def with_keys(self, request: Request, form: FormData) -> FormData:
        """The submitted form with keys in the place of names, where its view says that a field is looked up."""
        lookups = self.view_called(request.path_params["identity"]).lookups
        fields: list[tuple[str, Any]] = [
            (name, await self.key_of(request, lookups[name], value) if name in lookups else value)
            for name, value in form.multi_items()
            if isinstance(value, str)
        ]
        return FormData(fields)

    async def key_of(self, request: Request, identity: str, text: str) -> str:
        """The key of the record that is meant: by its key, exact name, or a suggestion. No key when there is none."""
        view, database = self.view_called(identity), request.app.state.database
        async with database.session(reading=True) as session:
            return await resolved(session, view, view.list_query(request), text)

    async def lookup_text(self, request: Request, identity: str, value: Any) -> str:
        """What an input shows that refers to the record with this key."""
        text = str(value or "")
        if not is_key(text):
            return text
        view, database = self.view_called(identity), request.app.state.database
        if not view.is_open_to(request.state.principal, "list"):
            return text
        async with database.session(reading=True) as session:
            record = await session.get(view.model, int(text))
        return text if record is None else written(record)

    async def field_text(self, request: Request, view: ConsoleView, field: LookupField) -> str:
        """The same for a field of a form; one of a new record may be filled by the address: `?user_id=7`."""
        value: Any = field._value()  # noqa: SLF001  wtforms' name for what it shows
        if not value and request.method == "GET":
            value = request.query_params.get(field.name, "")
            value = value if is_key(value) else ""
        return await self.lookup_text(request, view.lookups[field.name], value)


def routes(console: Any) -> list[Route]:
    @login_required
    async def lookup(_console: Any, request: Request) -> Response:
        view = console.view_of(request, "list")
        text = request.query_params.get("q", "").strip()
        if len(text) > SEARCH_MAX or "\x00" in text:
            raise HTTPException(400, "This cannot be searched for")
        database: Database = request.app.state.database
        async with database.session(reading=True) as session:
            found = await suggestions(session, view, view.list_query(request), text) if text else []
        return JSONResponse({"results": [{"id": one.id, "text": written(one)} for one in found]})

    async def look_up(request: Request) -> Response:
        answer: Response = await lookup(console, request)
        return answer

    return [Route("/{identity}/lookup", look_up, name="lookup")]
