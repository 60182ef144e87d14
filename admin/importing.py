"""CSV files into a table: a try that stores nothing and tells what is wrong row by row, then all of it, or none."""

import zlib
from base64 import b64decode, b64encode
from binascii import Error as NotBase64
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from admin.actions import counted
from admin.messages import redirect_with
from admin.places import Places
from backend.core.console import ConsoleView, Refused, refusal
from backend.core.console_export import CsvFile
from backend.core.console_import import (
    MOST_BYTES,
    MOST_ROWS,
    ConsoleImported,
    Outcome,
    Table,
    example,
    label,
    read_table,
    spans,
    store,
)
from backend.core.db import Database
from backend.core.events import emit

AT_ONCE = 1  # imports of a process: a transaction of many records is long
BUSY = "Another import is running. Try again in a minute"
FIRST = 10  # rows that are shown
ENVELOPE = 64 * 1024  # bytes of a form besides the file
NO_FILE = "Choose a file, or paste its content"


@dataclass(frozen=True)
class Sent:
    """A form as it came. `confirmed`: the person has seen its preview. `pasted`: the text, to be corrected there."""

    data: bytes
    confirmed: bool = False
    pasted: str = ""


def bounded(request: Request, most: int) -> Request:
    """The same request, whose body is refused once it is longer: files would fill the disk. HTTPException 413."""
    received = 0

    async def receive() -> Message:
        nonlocal received
        message = await request.receive()
        received += len(message.get("body", b""))
        if received > most:
            raise HTTPException(413, f"A file may have {MOST_BYTES // 2**20} MB")
        return message

    return Request(request.scope, receive)


def packed(data: bytes) -> str:
    """A file as a hidden field holds it, to the byte: browsers change the line ends of text."""
    return b64encode(zlib.compress(data)).decode()


def unpacked(text: str) -> bytes:
    """Back again, and never more than a file may have. Refused when it is not ours."""
    try:
        inflate = zlib.decompressobj()
        data = inflate.decompress(b64decode(text, validate=True), MOST_BYTES + 1)
    except (NotBase64, ValueError, zlib.error) as exc:
        raise Refused("What was previewed has been lost on the way. Choose the file again") from exc
    return data


async def _sent(request: Request) -> Sent:
    """Refused when nothing was."""
    most = 2 * MOST_BYTES + ENVELOPE  # pasted text may be encoded, and what was previewed is
    async with bounded(request, most).form(max_files=1, max_fields=10, max_part_size=most) as form:
        file, text, content = form.get("file"), form.get("text"), form.get("content")
        if isinstance(content, str) and content:
            return Sent(unpacked(content), confirmed=bool(form.get("confirmed")))
        if isinstance(file, UploadFile) and (data := await file.read()):
            return Sent(data)
        if isinstance(text, str) and text.strip():
            data = text.replace("\r\n", "\n").encode("utf-8", "replace")
            return Sent(data, pasted=data.decode().replace("\x00", ""))
    raise Refused(NO_FILE)


class Imports:
    """One per app."""

    def __init__(self) -> None:
        self.places = Places(AT_ONCE, BUSY)

    async def answer(self, request: Request, view: ConsoleView) -> Response:
        """`GET` and `POST /{identity}/import`: the form, a preview, and with `confirmed` the import itself."""
        _permit(request, view)
        if request.method != "POST":
            return await _page(request, view)
        sent = Sent(b"")
        try:
            sent = await _sent(request)
            table = read_table(view, sent.data)
            with self.places.taken():
                outcome = await _run(request, view, table, keep=sent.confirmed)
        except Refused as refused:
            return await _page(request, view, problem=str(refused), pasted=sent.pasted, status=refused.status)
        if sent.confirmed and not outcome.problems:
            url = str(request.url_for("admin:list", identity=view.identity))
            return redirect_with(request, url, f"{counted(view, len(outcome.made))} imported.")
        status = 400 if outcome.problems else 200
        content = packed(sent.data)
        return await _page(
            request, view, table=table, outcome=outcome, content=content, pasted=sent.pasted, status=status
        )

    def template(self, request: Request, view: ConsoleView) -> Response:
        """`GET /{identity}/import/template`: a file to begin with."""
        _permit(request, view)
        disposition = f'attachment; filename="{view.identity}-template.csv"'
        return Response(example(view), media_type=CsvFile.media_type, headers={"Content-Disposition": disposition})


def _permit(request: Request, view: ConsoleView) -> None:
    if not (view.can_import and view.can_create and view.is_open_to(request.state.principal, "import")):
        raise HTTPException(403)


async def _run(request: Request, view: ConsoleView, table: Table, *, keep: bool) -> Outcome:
    """Store the rows; what is not to be kept, or has problems, is rolled back."""
    database: Database = request.app.state.database
    try:
        async with database.session() as session:
            outcome = await store(session, view, table, request.state.principal)
            if keep and not outcome.problems:
                ids = spans(outcome.made)
                await emit(session, ConsoleImported(view=view.identity, rows=len(outcome.made), ids=ids))
                await session.commit()
            else:
                await session.rollback()
    except Exception as exc:
        raise refusal(exc) from exc
    return outcome


async def _page(
    request: Request,
    view: ConsoleView,
    *,
    table: Table | None = None,
    outcome: Outcome | None = None,
    content: str = "",
    pasted: str = "",
    problem: str = "",
    status: int = 200,
) -> Response:
    fields = view.form_schema.model_fields
    context = {
        "model_view": view,
        "table": table,
        "outcome": outcome,
        "content": content,
        "pasted": pasted,
        "problem": problem,
        "first": table.rows[:FIRST] if table and outcome and not outcome.problems else [],
        "labels": {name: label(view, name) for name in fields},
        "required": [name for name, field in fields.items() if field.is_required()],
        "what": counted(view, len(outcome.made)) if outcome else "",
        "most_rows": MOST_ROWS,
        "most_megabytes": MOST_BYTES // 2**20,
    }
    return await view.templates.TemplateResponse(request, "sqladmin/import.html", context, status)
