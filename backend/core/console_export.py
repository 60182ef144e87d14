"""What leaves the console as a file: the records of a view as they are stored, as CSV, JSON or XLSX, piece by piece.

The columns are those of the record's page that the table has, but for secrets. Their names are the API's, so that
programs, and the console's own import, know them again.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, ClassVar, Protocol

import orjson
from sqlalchemy import inspect

from backend.core.console import ConsoleView
from backend.core.events import SecurityEvent
from backend.core.models import SecretText
from backend.core.xlsx import Workbook

# Excel takes a file without one for the local code page. Python: `encoding="utf-8-sig"`; others skip it by themselves.
BOM = "\ufeff"
FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")  # the last four are full-width, for some languages' Excel


@dataclass(frozen=True, kw_only=True)
class ConsoleExported(SecurityEvent):
    """Somebody took records along. `rows`: that were sent; `complete`: whether that was all, or they hung up."""

    action: ClassVar[str] = "console.exported"
    user_id: int | None = None
    view: str
    format: str
    query: str
    rows: int
    complete: bool


def exported(view: ConsoleView) -> dict[str, Any]:
    """The columns of a view's files by their names: those of a record's page, secrets left out."""
    known: Any = inspect(view.model).column_attrs
    names = [name for name in view._details_prop_names if name in known]  # noqa: SLF001  SQLAdmin's, and no other's
    public = [name for name in names if not isinstance(known[name].columns[0].type, SecretText)]
    return {name: getattr(view.model, name) for name in public}


def plain(value: Any) -> Any:
    """A value for a cell: numbers and booleans as such, moments in ISO 8601 and UTC, lists as JSON, others as text."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    return value if value is None or isinstance(value, int | float | Decimal | str) else str(value)


def is_protected(text: str) -> bool:
    """Whether a spreadsheet would take it for a formula, but for the apostrophes in front."""
    return text.lstrip("'").startswith(FORMULA)


def csv_cell(value: Any) -> Any:
    """What stands in a CSV file: text that would be a formula gets an apostrophe, which the import takes off again."""
    value = plain(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f")
    return f"'{value}" if isinstance(value, str) and is_protected(value) else value


class Format(Protocol):
    """A file in the making."""

    media_type: ClassVar[str]

    def __init__(self, title: str, names: Sequence[str]) -> None: ...

    def head(self) -> bytes:
        """How it begins."""
        ...

    def body(self, rows: Iterable[Sequence[Any]]) -> bytes:
        """How it goes on."""
        ...

    def tail(self) -> bytes:
        """How it ends."""
        ...


class CsvFile:
    """Commas, CRLF, quotes where they are needed (RFC 4180), UTF-8 with its mark."""

    media_type: ClassVar[str] = "text/csv; charset=utf-8"

    def __init__(self, title: str, names: Sequence[str]) -> None:
        self.names = names

    def head(self) -> bytes:
        return BOM.encode() + self.body([self.names])

    def body(self, rows: Iterable[Sequence[Any]]) -> bytes:
        text = io.StringIO(newline="")
        csv.writer(text).writerows([csv_cell(value) for value in row] for row in rows)
        return text.getvalue().encode()

    def tail(self) -> bytes:
        return b""


class JsonFile:
    """An array of objects, one a line. Amounts are text, as in the API."""

    media_type: ClassVar[str] = "application/json"

    def __init__(self, title: str, names: Sequence[str]) -> None:
        self.names = names
        self.separator = b"\n"

    def head(self) -> bytes:
        return b"["

    def body(self, rows: Iterable[Sequence[Any]]) -> bytes:
        parts = []
        for row in rows:
            told = dict(zip(self.names, row, strict=True))
            parts += [self.separator, orjson.dumps(told, default=str, option=orjson.OPT_UTC_Z)]
            self.separator = b",\n"
        return b"".join(parts)

    def tail(self) -> bytes:
        return b"\n]\n"


class XlsxFile(Workbook):
    """A workbook of which no cell is a formula."""

    media_type: ClassVar[str] = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

    def body(self, rows: Iterable[Sequence[Any]]) -> bytes:
        return super().body([plain(value) for value in row] for row in rows)


FORMATS: Mapping[str, type[Format]] = {"csv": CsvFile, "json": JsonFile, "xlsx": XlsxFile}
