"""Items from files and into files: the console's import and export, with the rules of the store."""

import csv
import html
import io
import re
import zlib
from base64 import b64encode
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.console_import import MOST_BYTES, MOST_ROWS
from backend.features.items.models import Item
from backend.testing import Console, MakeUser

GOOD = "name,price,stock\nLamp,19.90,3\nChair,45,\n"


async def upload(browser: httpx2.AsyncClient, data: bytes | str, **fields: str) -> httpx2.Response:
    content = data.encode() if isinstance(data, str) else data
    return await browser.post("/admin/item/import", files={"file": ("items.csv", content)}, data=fields)


async def confirm(browser: httpx2.AsyncClient, preview: httpx2.Response) -> httpx2.Response:
    """What the button of the preview sends."""
    content = re.search(r'name="content" value="([^"]+)"', preview.text)
    assert content, preview.text
    fields = {"content": (None, content[1]), "confirmed": (None, "1")}
    return await browser.post("/admin/item/import", files=fields)


async def names(session: AsyncSession) -> list[str]:
    return list((await session.exec(select(Item.name).order_by(col(Item.id)))).all())


async def count(session: AsyncSession) -> int:
    return (await session.exec(select(func.count()).select_from(Item))).one()


def text_of(answer: httpx2.Response) -> str:
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", answer.text)))


async def test_a_preview_stores_nothing_and_confirming_it_stores_all(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    staff = await make_user("staff")
    browser = await console(staff.email)
    preview = await upload(browser, GOOD)
    assert preview.status_code == 200
    assert "2 items would be created. Nothing has been stored yet." in text_of(preview)
    assert await count(session) == 0
    answer = await confirm(browser, preview)
    assert (answer.status_code, answer.headers["location"]) == (303, "http://localhost/admin/item/list")
    assert "2 items imported." in (await browser.get("/admin/item/list")).text
    made = (await session.exec(select(Item).order_by(col(Item.id)))).all()
    stored = [(one.name, one.price, one.stock, one.owner_id) for one in made]
    assert stored == [("Lamp", Decimal("19.90"), 3, staff.id), ("Chair", Decimal(45), 0, staff.id)]


async def test_pasted_text_is_as_good_as_a_file(console: Console, make_user: MakeUser, session: AsyncSession) -> None:
    browser = await console((await make_user("staff")).email)
    preview = await browser.post("/admin/item/import", data={"text": GOOD.replace("\n", "\r\n")})
    assert (await confirm(browser, preview)).status_code == 303
    assert await names(session) == ["Lamp", "Chair"]


async def test_each_wrong_row_is_told_with_what_was_typed_and_nothing_is_stored(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    browser = await console((await make_user("staff")).email)
    answer = await upload(browser, "name,price,stock\nLamp,cheap,3\nChair,1,\n,2,1\nShelf,3,-1\nBed,4,5,6\n")
    told = text_of(answer)
    assert answer.status_code == 400
    assert "4 things have to be corrected" in told
    assert "2 Price cheap Write an amount such as 19.99" in told
    assert "4 Name none This field is required" in told
    assert "5 Stock -1 Input should be greater than or equal to 0" in told
    assert "6 none none This row has more cells than the header" in told
    assert 'name="content"' not in answer.text
    assert await count(session) == 0


async def test_what_was_pasted_is_still_there_to_be_corrected(console: Console, make_user: MakeUser) -> None:
    browser = await console((await make_user("staff")).email)
    for text in ("name,price\n<b>Lamp,cheap\n", "name\n<b>Lamp\n"):
        answer = await browser.post("/admin/item/import", data={"text": text})
        assert f'spellcheck="false">\n{html.escape(text, quote=False)}</textarea>' in answer.text


async def test_what_the_database_refuses_is_told_by_row_too(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    def refuse(_mapper: Any, _connection: Any, item: Item) -> None:
        if item.name == "Chair":
            item.price = None  # type: ignore[assignment]  # NOT NULL in the table

    event.listen(Item, "before_insert", refuse)
    try:
        browser = await console((await make_user("staff")).email)
        answer = await upload(browser, GOOD + "Shelf,3,1\n")
    finally:
        event.remove(Item, "before_insert", refuse)
    assert answer.status_code == 400
    assert "one thing has to be corrected" in text_of(answer)
    assert '<td data-label="Row">3</td>' in answer.text
    assert await count(session) == 0


async def test_what_has_become_wrong_since_the_preview_stops_the_whole_import(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    browser = await console((await make_user("staff")).email)
    preview = await upload(browser, GOOD)

    def refuse(_mapper: Any, _connection: Any, item: Item) -> None:
        item.price = None if item.name == "Chair" else item.price  # type: ignore[assignment]

    event.listen(Item, "before_insert", refuse)
    try:
        answer = await confirm(browser, preview)
    finally:
        event.remove(Item, "before_insert", refuse)
    assert answer.status_code == 400
    assert await count(session) == 0


READABLE = {
    "semicolons": b"name;price\nLamp, oak;1\n",
    "tabs": b"name\tprice\nLamp, oak\t1\n",
    "a byte order mark": b'\xef\xbb\xbfname,price\n"Lamp, oak",1\n',
    "CRLF": b'name,price\r\n"Lamp, oak",1\r\n',
    "CR": b'name,price\r"Lamp, oak",1\r',
    "no end of the line": b'name,price\n"Lamp, oak",1',
    "labels and spaces": b'Name , PRICE\n" Lamp, oak ", 1 \n',
    "empty rows": b'name,price\n\n,\n"Lamp, oak",1\n\n',
    "an odd order": b'price,nonsense,name\n1,x,"Lamp, oak"\n',
}


@pytest.mark.parametrize("case", READABLE)
async def test_csv_as_programs_write_it_is_read(
    console: Console, make_user: MakeUser, session: AsyncSession, case: str
) -> None:
    browser = await console((await make_user("staff")).email)
    preview = await upload(browser, READABLE[case])
    assert (await confirm(browser, preview)).status_code == 303
    assert await names(session) == ["Lamp, oak"]


async def test_a_quoted_text_has_lines(console: Console, make_user: MakeUser, session: AsyncSession) -> None:
    browser = await console((await make_user("staff")).email)
    await confirm(browser, await upload(browser, 'name,price,description\nLamp,1,"two\nlines ""here"""\n'))
    assert (await session.exec(select(Item.description))).one() == 'two\nlines "here"'


REFUSED: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 400, "Choose a file, or paste its content"),
    "white space": (b" \n\t\n", 400, "There is nothing in it"),
    "Latin-1": ("name,price\nBüro,1\n".encode("latin-1"), 400, "This is not UTF-8 (byte 13)"),
    "UTF-16": ("name,price\nLamp,1\n".encode("utf-16"), 400, "This is not UTF-8 (byte 1)"),
    "a picture": (b"\x89PNG\r\n\x1a\n\x00\x00", 400, "This is not UTF-8 (byte 1)"),
    "NUL": (b"name,price\nLamp\x00,1\n", 400, "There are NUL characters in it"),
    "no rows": (b"name,price\n", 400, "There is a header, and no row below it"),
    "no header": (b"Lamp,1\nChair,2\n", 400, "these are missing: “name”, “price”"),
    "a missing column": (b"name,stock\nLamp,1\n", 400, "these are missing: “price”"),
    "a column twice": (b"name,price,Name\nLamp,1,Chair\n", 400, "Two columns are for Name"),
    "an open quote": (b'name,price\n"Lamp,1\n', 400, "This cannot be read as CSV: unexpected end of data"),
    "an endless cell": (b"name,price\n" + b"x" * 200_000 + b",1\n", 400, "field larger than field limit"),
    "too many columns": (b"name,price" + b"," * 300 + b"\nLamp,1\n", 400, "More than 200 columns"),
    "too many rows": (b"name,price\n" + b"x,1\n" * (MOST_ROWS + 1), 413, "More than 10,000 rows"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_cannot_be_read_is_refused_with_the_reason(
    console: Console, make_user: MakeUser, session: AsyncSession, case: str
) -> None:
    data, status, message = REFUSED[case]
    browser = await console((await make_user("staff")).email)
    answer = await upload(browser, data)
    assert (answer.status_code, message in text_of(answer)) == (status, True), text_of(answer)
    assert await count(session) == 0


@pytest.mark.parametrize("content", ["nonsense", "====", "é", "eJw=", "AAAA", "x" * 5000])
async def test_a_preview_that_is_none_of_ours_is_refused(console: Console, make_user: MakeUser, content: str) -> None:
    browser = await console((await make_user("staff")).email)
    answer = await browser.post("/admin/item/import", data={"content": content, "confirmed": "1"})
    assert answer.status_code == 400


async def test_a_small_form_does_not_become_a_large_file(console: Console, make_user: MakeUser) -> None:
    browser = await console((await make_user("staff")).email)
    bomb = b64encode(zlib.compress(b"name,price\n" + b"x" * 10 * MOST_BYTES)).decode()
    assert len(bomb) < 100_000
    answer = await browser.post("/admin/item/import", data={"content": bomb, "confirmed": "1"})
    assert (answer.status_code, "A file may have 5 MB" in answer.text) == (413, True)


async def test_columns_that_nobody_knows_are_named_and_left_aside(console: Console, make_user: MakeUser) -> None:
    browser = await console((await make_user("staff")).email)
    preview = await upload(browser, "id,name,price,<b>colour</b>,owner_id\n9,Lamp,1,red,999\n")
    assert "“id”, “<b>colour</b>”, “owner_id”" in text_of(preview).replace("&lt;", "<")
    assert "<b>colour" not in preview.text


async def test_after_a_hundred_problems_nobody_reads_on(console: Console, make_user: MakeUser) -> None:
    browser = await console((await make_user("staff")).email)
    answer = await upload(browser, "name,price\n" + "x,y\n" * 300)
    assert "more than 100 things have to be corrected. These come first." in text_of(answer)
    assert answer.text.count('<td data-label="Row">') == 100


async def test_the_template_is_a_file_that_can_be_imported(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    browser = await console((await make_user("staff")).email)
    template = await browser.get("/admin/item/import/template")
    assert template.content.decode("utf-8-sig").splitlines()[0] == "name,description,price,stock"
    assert (await confirm(browser, await upload(browser, template.content))).status_code == 303
    assert await names(session) == ["Teapot"]


async def test_items_that_were_exported_edited_and_imported_again_are_the_same_but_for_the_edit(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    staff = await make_user("staff")
    browser = await console(staff.email)
    texts = ["=1+1", "'=1", "-5", 'a "quoted", one', "über\nlines", "@x", "'tis", "😀"]
    session.add_all(
        Item(name=f"Item {number}", description=text, price=Decimal("0.05") + number, stock=number, owner_id=staff.id)
        for number, text in enumerate(texts)
    )
    await session.commit()
    exported = await browser.get("/admin/item/export/csv?sortBy=id")
    rows = list(csv.reader(io.StringIO(exported.content.decode("utf-8-sig"), newline="")))
    assert [row[rows[0].index("description")][:2] for row in rows[1:4]] == ["'=", "''", "'-"]
    rows[1][rows[0].index("name")] = "Edited"
    edited = io.StringIO(newline="")
    csv.writer(edited, delimiter=";").writerows(rows)
    assert (await confirm(browser, await upload(browser, edited.getvalue()))).status_code == 303
    stored = (await session.exec(select(Item).order_by(col(Item.id)))).all()
    before, after = stored[: len(texts)], stored[len(texts) :]
    assert [one.description for one in after] == texts
    assert [(one.price, one.stock) for one in after] == [(one.price, one.stock) for one in before]
    assert [one.name for one in after] == ["Edited", *(one.name for one in before[1:])]


async def test_only_those_who_may_import_can(console: Console, make_user: MakeUser) -> None:
    admin = await console((await make_user("admin")).email)
    assert 'href="http://localhost/admin/item/import"' in (await admin.get("/admin/item/list")).text
    assert "/admin/user/import" not in (await admin.get("/admin/user/list")).text
    assert (await admin.get("/admin/user/import")).status_code == 403
    assert (await admin.post("/admin/user/import", data={"text": "email\na@example.com"})).status_code == 403
    stranger = await console("", None)
    assert (await stranger.post("/admin/item/import", data={"text": GOOD})).status_code == 302


async def test_no_other_site_can_import(console: Console, make_user: MakeUser, session: AsyncSession) -> None:
    browser = await console((await make_user("staff")).email)
    headers = {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"}
    assert (await browser.post("/admin/item/import", data={"text": GOOD}, headers=headers)).status_code == 403
    assert await count(session) == 0


async def test_an_import_is_in_the_audit_log_with_the_keys(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    models = pytest.importorskip("backend.features.audit.models", reason="nobody would write it down")
    staff = await make_user("staff")
    browser = await console(staff.email)
    await confirm(browser, await upload(browser, GOOD))
    first, last = (await session.exec(select(Item.id).order_by(col(Item.id)))).all()
    imports = select(models.AuditEntry).where(models.AuditEntry.action == "console.imported")
    entries = (await session.exec(imports)).all()
    assert [(one.actor_id, one.details) for one in entries] == [
        (staff.id, {"view": "item", "rows": 2, "ids": f"{first}-{last}"})
    ]


BYTES = st.binary(max_size=400) | st.text(alphabet="name,pric;\t\"'\r\n=0.5é\x00", max_size=80).map(str.encode)


@pytest.fixture
async def browser(console: Console, make_user: MakeUser) -> httpx2.AsyncClient:
    return await console((await make_user("staff")).email)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=BYTES)
async def test_any_bytes_have_an_answer(browser: httpx2.AsyncClient, data: bytes) -> None:
    multipart = {"Content-Type": "multipart/form-data; boundary=x"}
    for file in (data, b"name,price\n" + data):
        assert (await upload(browser, file)).status_code in {200, 400}
        assert (await browser.post("/admin/item/import", content=file, headers=multipart)).status_code == 400
