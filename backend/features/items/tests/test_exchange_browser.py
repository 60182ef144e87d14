"""Import with an error, then fixed; export, opened and read: in a real browser."""

import csv
import json
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from backend.testing import ON_VIOLATION, PASSWORD, axe

WRONG = "name,price,stock\nImported lamp,cheap,3\nImported chair,45,1\n"


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 360])
async def test_an_import_with_an_error_then_fixed_and_an_export_opened(
    fresh_server: str, page: Any, tmp_path: Path, width: int
) -> None:
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    await page.add_init_script(ON_VIOLATION)
    await page.set_viewport_size({"width": width, "height": 900})

    async def is_too_wide() -> bool:
        return bool(await page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))

    await page.goto(f"{fresh_server}/admin/login")
    await page.get_by_label("E-mail address").fill("admin@example.com")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await page.get_by_role("heading", name="Console").wait_for()

    await page.goto(f"{fresh_server}/admin/item/list")
    await page.get_by_role("link", name="Import").click()
    file = tmp_path / "items.csv"
    file.write_text(WRONG)
    await page.get_by_label("CSV file").set_input_files(file)
    await page.get_by_role("button", name="Preview").click()
    await page.get_by_text("one thing has to be corrected").wait_for()
    await page.get_by_role("cell", name="cheap").wait_for()
    assert await axe(page) == []
    assert not await is_too_wide()
    assert [one for one in problems if "400" not in one] == []  # Chromium tells of every such answer
    problems.clear()

    file.write_text(WRONG.replace("cheap", "19.90"))
    await page.get_by_label("CSV file").set_input_files(file)
    await page.get_by_role("button", name="Preview").click()
    await page.get_by_text("2 items would be created").wait_for()
    assert await axe(page) == []
    assert not await is_too_wide()
    await page.get_by_role("button", name="Import 2 items").click()
    await page.get_by_text("2 items imported.").wait_for()

    await page.goto(f"{fresh_server}/admin/item/list?search=IMPORTED+l")
    files = {}
    for name in ("CSV", "Excel (XLSX)", "JSON"):
        await page.locator("summary", has_text="Export").click()
        assert not await is_too_wide()
        async with page.expect_download() as download:
            await page.get_by_role("link", name=name, exact=True).click()
        got = await download.value
        files[name] = tmp_path / got.suggested_filename
        await got.save_as(files[name])
        await page.locator("summary", has_text="Export").click()
    with files["CSV"].open(encoding="utf-8-sig", newline="") as opened:
        [row] = csv.DictReader(opened)
    assert (row["name"], row["price"], row["stock"]) == ("Imported lamp", "19.90", "3")
    [told] = json.loads(files["JSON"].read_text())
    assert (told["id"], told["name"], told["price"]) == (int(row["id"]), "Imported lamp", "19.90")
    sheet = openpyxl.load_workbook(files["Excel (XLSX)"])["Items"]
    header, cells = ([cell.value for cell in line] for line in sheet.iter_rows())
    assert dict(zip(header, cells, strict=True))["price"] == 19.9
    assert problems == []
