"""An XLSX file as a stream: sheets of rows go in, pieces of the file come out, and no row is kept (ECMA-376 part 1).

Libraries hand out the file when its last row has been written, and keep the rows in a temporary file until then: the
first byte of a long one would come minutes later. Text is written as text; nothing becomes a formula.
"""

import re
import zipfile
from collections.abc import Iterable, Sequence
from decimal import Decimal
from html import escape
from math import isfinite
from typing import IO, Any

MOST_ROWS = 1_048_576  # of a sheet
MOST_BYTES = 1 << 30  # of a sheet: from 2 GiB on, the archive would need a format that Excel does not read
MOST_TEXT = 32_767  # of a cell, in UTF-16 units
MOST_DIGITS = 15  # of a number: Excel rounds what has more

HEAD = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
KIND = "application/vnd.openxmlformats-officedocument.spreadsheetml"
TYPES = (
    f'{HEAD}<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    f'<Default Extension="xml" ContentType="{KIND}.worksheet+xml"/>'  # however many sheets there will be
    f'<Override PartName="/xl/workbook.xml" ContentType="{KIND}.sheet.main+xml"/></Types>'
)
ROOT = (
    f'{HEAD}<Relationships xmlns="{RELATIONS}">'
    f'<Relationship Id="rId1" Type="{OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>'
)
SHEET = (  # the first row stays in sight
    f'{HEAD}<worksheet xmlns="{MAIN}"><sheetViews><sheetView workbookViewId="0">'
    '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/></sheetView></sheetViews><sheetData>'
)
# What XML cannot hold or would change, and what would be taken for one of these, as _xHHHH_ (part 1, §22.9.2.19).
UNTOLD = re.compile("[\x00-\x08\x0b-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")


class _Pieces:
    """What the archive writes, until it is taken."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits here."""

    def taken(self) -> bytes:
        taken, self.parts = b"".join(self.parts), []
        return taken


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "<c/>"
    if isinstance(value, bool):
        return f'<c t="b"><v>{value:d}</v></c>'
    if isinstance(value, int | float | Decimal):
        number = format(value, "f") if isinstance(value, Decimal) else repr(value)
        if isfinite(value) and (isinstance(value, float) or sum(map(str.isdigit, number)) <= MOST_DIGITS):
            return f"<c><v>{number}</v></c>"
        value = number
    text = str(value)
    if len(text) > MOST_TEXT // 2:
        text = text.encode("utf-16-le")[: 2 * MOST_TEXT].decode("utf-16-le", "ignore")
    text = UNTOLD.sub(lambda match: f"_x{ord(match[0]):04X}_", text)
    return f'<c t="inlineStr"><is><t xml:space="preserve">{escape(text, quote=False)}</t></is></c>'


class Workbook:
    """A file of one table, whose first row stays in sight; it goes on in further sheets where one is full."""

    def __init__(self, title: str, names: Sequence[str]) -> None:
        self._title = re.sub(r"[\[\]:*?/\\']", " ", title)[:25] or "Sheet"
        self._names = names
        self._pieces = _Pieces()
        self._zip = zipfile.ZipFile(self._pieces, "w", zipfile.ZIP_DEFLATED, compresslevel=3)  # type: ignore[call-overload]
        self._sheets = 0
        self._sheet: IO[bytes] | None = None
        self._rows = self._bytes = 0

    def _write(self, rows: Iterable[Sequence[Any]]) -> None:
        for row in rows:
            if self._sheet is None or self._rows == MOST_ROWS or self._bytes > MOST_BYTES:
                self._next_sheet()
            self._row(row)

    def _row(self, row: Sequence[Any]) -> None:
        data = f"<row>{''.join(map(_cell, row))}</row>".encode()
        self._sheet.write(data)  # type: ignore[union-attr]
        self._rows += 1
        self._bytes += len(data)

    def _next_sheet(self) -> None:
        self._end_sheet()
        self._sheets += 1
        self._rows = self._bytes = 0
        self._sheet = self._zip.open(f"xl/worksheets/sheet{self._sheets}.xml", "w")
        self._sheet.write(SHEET.encode())
        self._row(self._names)

    def _end_sheet(self) -> None:
        if self._sheet is not None:
            self._sheet.write(b"</sheetData></worksheet>")
            self._sheet.close()

    def head(self) -> bytes:
        """How the file begins."""
        self._zip.writestr("[Content_Types].xml", TYPES)
        self._zip.writestr("_rels/.rels", ROOT)
        self._next_sheet()
        return self._pieces.taken()

    def body(self, rows: Iterable[Sequence[Any]]) -> bytes:
        """How it goes on with these rows."""
        self._write(rows)
        return self._pieces.taken()

    def tail(self) -> bytes:
        """How it ends: with what lists the sheets."""
        self._end_sheet()
        numbers = range(1, self._sheets + 1)
        sheets = "".join(
            f'<sheet name="{escape(self._title)}{f" {number}" if number > 1 else ""}" sheetId="{number}" '
            f'r:id="rId{number}"/>'
            for number in numbers
        )
        relations = "".join(
            f'<Relationship Id="rId{number}" Type="{OFFICE}/worksheet" Target="worksheets/sheet{number}.xml"/>'
            for number in numbers
        )
        book = f'{HEAD}<workbook xmlns="{MAIN}" xmlns:r="{OFFICE}"><sheets>{sheets}</sheets></workbook>'
        self._zip.writestr("xl/workbook.xml", book)
        known = f'{HEAD}<Relationships xmlns="{RELATIONS}">{relations}</Relationships>'
        self._zip.writestr("xl/_rels/workbook.xml.rels", known)
        self._zip.close()
        return self._pieces.taken()
