"""Editing in the list: inputs in the cells of chosen columns, one Save for all rows of the page, all stored or none.

The rules are those of the form: the API's schema, and the version that says what the person was looking at. Rows in
which nothing was typed are left alone, whatever happened to them meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup
from pydantic import BaseModel, ValidationError
from sqladmin import Admin
from sqladmin.authentication import login_required
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from wtforms import BooleanField, Form

from admin.messages import redirect_with
from backend.core.console import STALE, ConsoleView, Refused, record_id, refusal
from backend.core.console_forms import VERSION, said, stated, text_fields
from backend.core.db import Database

Errors = dict[int, list[str]]  # by the key of the row
WAS = "was"


@dataclass
class Editor:
    """The inputs of one page. `typed`: what was sent and not stored, with what is wrong about it."""

    view: ConsoleView
    form: type[Form]
    names: Sequence[str]
    typed: FormData | None = None
    errors: Errors = field(default_factory=dict)

    made: dict[int, Form] = field(default_factory=dict)  # by the key of the row

    async def of(self, row: Any) -> Form:
        """A form for one row, filled with what was typed, or else with what is stored."""
        if row.id not in self.made:
            typed = self.typed if self.typed is not None and f"{row.id}.{VERSION}" in self.typed else None
            stored = await self.view.get_form_data_for_edit(row)
            self.made[row.id] = self.form(formdata=typed, data=stored, prefix=f"{row.id}.")
        return self.made[row.id]

    async def cell(self, row: Any, name: str, label: str) -> Markup:
        """The input, and what was in it when the page was made."""
        shown = (await self.of(row))[name]
        bad = {"aria_invalid": "true", "aria_describedby": f"edits-{row.id}"} if row.id in self.errors else {}
        own = (shown.render_kw or {}).get("class", "form-control")
        widget = shown(form="edits", class_=own, aria_label=f"{label} of {row}", **bad)
        hidden = Markup('<input type="hidden" form="edits" name="{}" value="{}">')
        return Markup("{}").format(widget) + hidden.format(f"{row.id}.{name}.{WAS}", self._was(shown))

    def version(self, row: Any) -> str:
        return self.sent(f"{row.id}.{VERSION}") or str(row.version)

    def _was(self, shown: Any) -> str:
        key = f"{shown.name}.{WAS}"
        return self.sent(key) if self.typed is not None and key in self.typed else text_of(shown)

    def sent(self, key: str) -> str:
        return str(self.typed.get(key, "")) if self.typed is not None else ""

    def problems(self, rows: Sequence[Any]) -> list[str]:
        """Of rows that are not on the page any more."""
        shown = {row.id for row in rows}
        return [f"{self.view.name} {one}: {' '.join(said)}" for one, said in self.errors.items() if one not in shown]


def text_of(shown: Any) -> str:
    """What a browser would send of a field."""
    if isinstance(shown, BooleanField):
        return "y" if shown.data else ""
    value = shown._value() if hasattr(shown, "_value") else shown.data  # noqa: SLF001  as its widget does
    return "" if value is None else str(value)


async def editor_of(request: Request, view: ConsoleView) -> Editor | None:
    """None where nothing can be edited in the list, or not by this person."""
    if getattr(request.state, "list_editor", None) is not None:
        editor: Editor = request.state.list_editor
        return editor
    if not view.column_edit_list or not view.is_open_to(request.state.principal, "edit"):
        return None
    whole = await view.scaffold_form()
    names = [one.key for one in view.column_edit_list]
    fields = {name: getattr(whole, name) for name in names}
    return Editor(view=view, form=type("Row", (Form,), fields), names=names)


def touched(form: FormData, names: Sequence[str]) -> list[int]:
    """The rows in which something was typed."""
    rows = [record_id(key.removesuffix(f".{VERSION}")) for key in form if key.endswith(f".{VERSION}")]

    def changed(row: int, name: str) -> bool:
        return str(form.get(f"{row}.{name}", "")) != str(form.get(f"{row}.{name}.{WAS}", ""))

    return [row for row in dict.fromkeys(rows) if any(changed(row, name) for name in names)]


async def _checked(editor: Editor, record: Any, errors: list[str]) -> BaseModel | None:
    """What is to be stored of this row; what is wrong goes to `errors`."""
    form, schema = await editor.of(record), editor.view.form_schema
    if editor.sent(f"{record.id}.{VERSION}") != str(record.version):
        errors.append(STALE)
        return None
    if not form.validate():
        errors += [f"{one.label.text}: {' '.join(map(str, one.errors))}" for one in form if one.errors]
        return None
    stored = await editor.view.get_form_data_for_edit(record)
    try:
        return schema.model_validate(stated(stored | form.data))
    except ValidationError as exc:
        labels: Mapping[str, str] = {one.short_name: one.label.text for one in form}
        places = [(str(error["loc"][0]) if error["loc"] else "", said(error)) for error in exc.errors()]
        errors += [f"{labels.get(name, name)}: {said}" if name else said for name, said in places]
        return None


async def _store(session: AsyncSession, editor: Editor, ids: Sequence[int], request: Request) -> None:
    """All of these rows; Refused and nothing, with `editor.errors` saying why."""
    checked = []
    for record in await editor.view.load_all(session, ids):
        errors: list[str] = []
        checked.append((record, await _checked(editor, record, errors)))
        if errors:
            editor.errors[record.id] = errors
    if editor.errors:
        raise Refused("Nothing was saved: see what is said beside the rows", 400)
    for record, form in checked:
        key = record.id  # reading it later would ask a transaction that has failed
        try:
            await editor.view.change(session, record, form, request.state.principal)
            await session.flush()
        except Exception as exc:
            refused = refusal(exc)
            editor.errors[key] = [str(refused)]
            raise Refused("Nothing was saved: see what is said beside the rows", refused.status) from exc
    await session.commit()


async def _save(request: Request, editor: Editor, ids: Sequence[int]) -> None:
    database: Database = request.app.state.database
    try:
        async with database.session() as session:
            await _store(session, editor, ids, request)
    except Exception as exc:
        raise refusal(exc) from exc


def edit_list_route(console: Admin, view: ConsoleView) -> Route:
    """`POST /{identity}/edit-list`: store what was typed in the list, then show it again."""

    @login_required
    async def save(_console: Admin, request: Request) -> Response:
        editor = await editor_of(request, view)
        if editor is None:
            raise HTTPException(403)
        editor.typed = form = await text_fields(request)
        ids = touched(form, editor.names)
        url = request.url_for("admin:list", identity=view.identity).replace(query=str(form.get("query", ""))[:2000])
        if not ids:
            return redirect_with(request, str(url), "Nothing was changed.")
        try:
            await _save(request, editor, ids)
        except Refused as refused:
            return await _shown_again(console, request, editor, url.query, refused)
        many = f"{len(ids):,} {(view.name if len(ids) == 1 else view.name_plural).lower()}"
        return redirect_with(request, str(url), f"{many} saved.")

    async def endpoint(request: Request) -> Response:
        answer: Response = await save(console, request)
        return answer

    return Route(f"/{view.identity}/edit-list", endpoint, methods=["POST"], name=f"edit-list-{view.identity}")


async def _shown_again(console: Admin, request: Request, editor: Editor, query: str, refused: Refused) -> Response:
    """The list as it was asked for, with what was typed."""
    path = request.scope["path"].removesuffix("edit-list") + "list"
    asked = {"method": "GET", "path": path, "raw_path": path.encode(), "query_string": query.encode()}
    again = Request({**request.scope, **asked, "path_params": {"identity": editor.view.identity}}, request.receive)
    editor.made.clear()  # of records of the other session
    again.state.list_editor, again.state.list_problem = editor, str(refused)
    page: Response = await console.list(again)
    if page.status_code == 200:
        page.status_code = refused.status
    return page
