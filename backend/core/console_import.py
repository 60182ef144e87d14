"""CSV files into a view's table: read strictly, held to the rules of its form, stored by its `create`, all or none.

A view offers it by `can_import = True`. Its `create` is called in a transaction of many records: it must not commit.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel, ValidationError
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Principal
from backend.core.console import ConsoleView, Refused, refusal
from backend.core.console_export import BOM, csv_cell, is_protected
from backend.core.console_forms import said
from backend.core.events import SecurityEvent

MOST_BYTES = 5 * 1024 * 1024
MOST_ROWS = 10_000
MOST_PROBLEMS = 100  # that are told; after so many nobody reads on
MOST_COLUMNS = 200
TOGETHER = 200  # rows that are stored at once
SHOWN = 60  # characters of what was typed
DELIMITERS = ",;\t"


@dataclass(frozen=True, kw_only=True)
class ConsoleImported(SecurityEvent):
    """Somebody imported records. `ids`: the keys of the new ones, `7-1006, 1010`."""

    action: ClassVar[str] = "console.imported"
    user_id: int | None = None
    view: str
    rows: int
    ids: str


@dataclass(frozen=True)
class Row:
    """What one record of the file says, by field, without empty cells. The header is row 1, as in a spreadsheet."""

    number: int
    stated: dict[str, str]
    surplus: int = 0  # cells beyond the header


@dataclass(frozen=True)
class Table:
    """A file that was read: which fields it has, which columns nobody knows, and its rows."""

    fields: Sequence[str]
    unknown: Sequence[str]
    rows: Sequence[Row]


@dataclass(frozen=True)
class Problem:
    """Why a row cannot be stored. `typed`: what stands there, where that is no secret."""

    row: int
    field: str
    typed: str
    message: str


@dataclass(frozen=True)
class Outcome:
    """What came of it: the keys of new records in the file's order, or what has to be corrected."""

    made: Sequence[int]
    problems: Sequence[Problem]
    more: bool = False  # whether there are problems besides these


def label(view: ConsoleView, name: str) -> str:
    return str(view._column_labels.get(name, name))  # noqa: SLF001  SQLAdmin's, and no other's


def _key(heading: str) -> str:
    return heading.strip().casefold().replace(" ", "_")


def _known(view: ConsoleView) -> dict[str, str]:
    """What a column may be called → the field."""
    fields = view.form_schema.model_fields
    return {_key(label(view, name)): name for name in fields} | {_key(name): name for name in fields}


def _text(data: bytes) -> str:
    if len(data) > MOST_BYTES:
        raise Refused(f"A file may have {MOST_BYTES // 2**20} MB", 413)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise Refused(f"This is not UTF-8 (byte {exc.start + 1}). In Excel, save it as “CSV UTF-8”") from exc
    if "\x00" in text:
        raise Refused("There are NUL characters in it. Is this a CSV file?")
    if not text.strip():
        raise Refused("There is nothing in it")
    return text


def _records(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)


def _delimiter(text: str, known: dict[str, str]) -> str:
    """The one by which the header has most columns that we know. csv.Sniffer guesses, and often wrongly."""

    def fitting(delimiter: str) -> tuple[int, int]:
        header = next(_records(text, delimiter), [])
        return sum(_key(heading) in known for heading in header), len(header)

    return max(DELIMITERS, key=fitting)


def _matched(view: ConsoleView, header: Sequence[str]) -> list[str]:
    """The field of each column; empty for one that nobody knows."""
    known = _known(view)
    fields = [known.get(_key(heading), "") for heading in header]
    if len(header) > MOST_COLUMNS:
        raise Refused(f"More than {MOST_COLUMNS} columns")
    if twice := sorted({name for name in fields if name and fields.count(name) > 1}):
        raise Refused(f"Two columns are for {label(view, twice[0])}")
    required = [name for name, field in view.form_schema.model_fields.items() if field.is_required()]
    if missing := [name for name in required if name not in fields]:
        names = ", ".join(f"“{name}”" for name in missing)
        raise Refused(f"The first line has to name the columns, and these are missing: {names}")
    return fields


def _cell(text: str) -> str:
    """What was meant: without white space around, and without the apostrophe that our export puts before a formula."""
    text = text.strip()
    return text[1:] if text.startswith("'") and is_protected(text) else text


def read_table(view: ConsoleView, data: bytes) -> Table:
    """What a CSV file says. Refused when it cannot be read, or a column is missing that has to be there."""
    text = _text(data)
    rows: list[Row] = []
    try:
        records = _records(text, _delimiter(text, _known(view)))
        header = next(records, [])
        fields = _matched(view, header)
        for number, cells in enumerate(records, start=2):
            if not any(cells):
                continue
            if len(rows) == MOST_ROWS:
                raise Refused(f"More than {MOST_ROWS:,} rows. Split the file", 413)
            stated = {name: _cell(cell) for name, cell in zip(fields, cells, strict=False) if name}
            surplus = sum(map(bool, cells[len(fields) :]))
            rows.append(Row(number, {name: cell for name, cell in stated.items() if cell}, surplus))
    except csv.Error as exc:
        raise Refused(f"This cannot be read as CSV: {exc}") from exc
    if not rows:
        raise Refused("There is a header, and no row below it")
    unknown = [heading.strip() or "(no name)" for heading, name in zip(header, fields, strict=True) if not name]
    return Table([name for name in fields if name], unknown, rows)


def _typed(view: ConsoleView, row: Row, name: str) -> str:
    text = row.stated.get(name, "")
    secret = view.form_schema.model_json_schema()["properties"].get(name, {}).get("format") == "password"
    if secret and text:
        return "•••"
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def _checked(view: ConsoleView, row: Row) -> tuple[BaseModel | None, list[Problem]]:
    if row.surplus:
        return None, [Problem(row.number, "", "", "This row has more cells than the header")]
    try:
        return view.form_schema.model_validate_strings(row.stated, strict=False), []
    except ValidationError as exc:
        problems = []
        for error in exc.errors():
            name = str(error["loc"][0]) if error["loc"] else ""
            message = "This field is required" if error["type"] == "missing" else said(error)
            problems.append(Problem(row.number, label(view, name) if name else "", _typed(view, row, name), message))
        return None, problems


Checked = tuple[Row, BaseModel]


async def _one_by_one(
    session: AsyncSession, view: ConsoleView, rows: Sequence[Checked], caller: Principal
) -> tuple[list[int], list[Problem]]:
    """Each within a savepoint of its own: what the database refuses in one row says nothing about the next."""
    made: list[int] = []
    problems: list[Problem] = []
    for row, form in rows:
        try:
            async with session.begin_nested():
                made += await view.create_all(session, [form], caller)
        except Exception as exc:
            refused = refusal(exc)
            if refused.status >= 500:  # not the file's fault
                raise refused from exc
            problems.append(Problem(row.number, "", "", str(refused)))
    return made, problems


async def _together(
    session: AsyncSession, view: ConsoleView, rows: Sequence[Checked], caller: Principal
) -> tuple[list[int], list[Problem]]:
    """All at once, which takes few statements; one by one, to tell which it was, when that fails."""
    try:
        async with session.begin_nested():
            return list(await view.create_all(session, [form for _, form in rows], caller)), []
    except Exception as exc:
        if (refused := refusal(exc)).status >= 500:
            raise refused from exc
    return await _one_by_one(session, view, rows, caller)


async def store(session: AsyncSession, view: ConsoleView, table: Table, caller: Principal) -> Outcome:
    """Create what the rows say in this session, which the caller commits if there are no problems, or rolls back."""
    made: list[int] = []
    problems: list[Problem] = []
    for start in range(0, len(table.rows), TOGETHER):
        good: list[Checked] = []
        for row in table.rows[start : start + TOGETHER]:
            form, found = _checked(view, row)
            problems += found
            good += [(row, form)] if form is not None else []
        keys, found = await _together(session, view, good, caller)
        made += keys
        problems += found
        if len(problems) > MOST_PROBLEMS:
            break
    problems.sort(key=lambda one: one.row)
    return Outcome(made, problems[:MOST_PROBLEMS], more=len(problems) > MOST_PROBLEMS)


def spans(ids: Sequence[int]) -> str:
    """`7-9, 12`: short, as keys of one import mostly follow each other."""
    found: list[list[int]] = []
    for one in ids:
        if found and one == found[-1][1] + 1:
            found[-1][1] = one
        else:
            found.append([one, one])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in found)


def example(view: ConsoleView) -> bytes:
    """A file to begin with: the columns, and a row as it may be."""
    described = view.form_schema.model_json_schema()["properties"]
    values = [(described[name].get("examples") or [described[name].get("default", "")])[0] for name in described]
    text = io.StringIO(newline="")
    csv.writer(text).writerows([list(described), [csv_cell(value) for value in values]])
    return (BOM + text.getvalue()).encode()
