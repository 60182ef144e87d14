"""The files that the console writes: what is in them, and that no cell is a formula."""

import csv
import io
import json
import re
import zipfile
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backend.core import xlsx
from backend.core.console_export import FORMATS, csv_cell
from backend.core.console_import import _cell, spans

MOMENT = datetime(2026, 1, 31, 10, 30, tzinfo=timezone(timedelta(hours=1)))
HOSTILE = ["=1+1", "+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''=1", '=HYPERLINK("//x.example")', "\uff1d1"]
STORABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))


def written(kind: str, names: Sequence[str], *rows: Sequence[Any]) -> bytes:
    file = FORMATS[kind]("Things", names)
    return b"".join([file.head(), *(file.body([row]) for row in rows), file.tail()])


def as_csv(data: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline="")))


def as_xlsx(data: bytes) -> list[list[Any]]:
    book = openpyxl.load_workbook(io.BytesIO(data), read_only=True)
    return [[cell.value for cell in row] for sheet in book for row in sheet.iter_rows()]


@pytest.mark.parametrize("text", HOSTILE)
def test_what_a_spreadsheet_would_take_for_a_formula_begins_with_an_apostrophe(text: str) -> None:
    [[cell]] = as_csv(written("csv", ["name"], [text]))[1:]
    assert cell == f"'{text}"
    assert _cell(cell) == text


@pytest.mark.parametrize("text", HOSTILE)
def test_text_in_a_workbook_is_no_formula(text: str) -> None:
    data = written("xlsx", ["name"], [text])
    assert "<f" not in zipfile.ZipFile(io.BytesIO(data)).read("xl/worksheets/sheet1.xml").decode()
    cell = openpyxl.load_workbook(io.BytesIO(data)).worksheets[0]["A2"]
    assert cell.data_type != "f"
    assert cell.value.replace("_x000D_", "\r") == text


@given(STORABLE.map(str.strip))
def test_what_is_exported_is_what_is_imported(text: str) -> None:
    [[cell]] = as_csv(written("csv", ["name"], [text]))[1:] if text else [[""]]
    assert _cell(cell) == text


def test_numbers_stay_numbers() -> None:
    row = [-7, -1.5, Decimal("-19.90"), True, None]
    names = ["a", "b", "c", "d", "e"]
    assert as_csv(written("csv", names, row))[1] == ["-7", "-1.5", "-19.90", "true", ""]
    assert json.loads(written("json", names, row)) == [{"a": -7, "b": -1.5, "c": "-19.90", "d": True, "e": None}]
    assert as_xlsx(written("xlsx", names, row))[1] == [-7, -1.5, -19.9, True, None]


def test_what_excel_would_round_is_text_there() -> None:
    row = [12345678901234567, Decimal("12345678901234.56"), float("inf")]
    assert as_xlsx(written("xlsx", ["a", "b", "c"], row))[1] == ["12345678901234567", "12345678901234.56", "inf"]


@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_moments_are_in_utc_and_lists_are_json(kind: str) -> None:
    read = {"csv": as_csv, "xlsx": as_xlsx}[kind]
    data = written(kind, ["at", "list"], [MOMENT, {"é": [1, None]}])
    assert read(data) == [["at", "list"], ["2026-01-31T09:30:00Z", '{"é": [1, null]}']]


def test_moments_in_json_are_in_utc_too() -> None:
    assert json.loads(written("json", ["at"], [MOMENT.astimezone(UTC)])) == [{"at": "2026-01-31T09:30:00Z"}]


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_without_rows_is_whole(kind: str) -> None:
    read: Any = {"csv": as_csv, "xlsx": as_xlsx, "json": json.loads}[kind]
    assert read(written(kind, ["id", "name"])) == ([] if kind == "json" else [["id", "name"]])


@given(STORABLE)
def test_any_text_comes_back_from_a_workbook(text: str) -> None:
    read = as_xlsx(written("xlsx", ["name"], ["x" + text]))[1][0]
    assert re.sub("_x([0-9A-F]{4})_", lambda match: chr(int(match[1], 16)), read) == "x" + text


def test_a_text_that_no_cell_holds_is_cut() -> None:
    assert as_xlsx(written("xlsx", ["name"], ["😀" * 20_000]))[1] == ["😀" * 16_383]


def test_a_full_sheet_goes_on_in_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xlsx, "MOST_ROWS", 3)
    book = openpyxl.load_workbook(io.BytesIO(written("xlsx", ["id"], *([number] for number in range(5)))))
    assert book.sheetnames == ["Things", "Things 2", "Things 3"]
    assert [[cell.value for cell in sheet["A"]] for sheet in book] == [["id", 0, 1], ["id", 2, 3], ["id", 4]]


def test_apostrophes_that_protect_nothing_stay() -> None:
    assert (csv_cell("'tis"), _cell("'tis"), _cell("'")) == ("'tis", "'tis", "'")


def test_keys_are_told_as_spans() -> None:
    assert spans([7, 8, 9, 12, 20, 21]) == "7-9, 12, 20-21"
    assert spans([]) == ""
