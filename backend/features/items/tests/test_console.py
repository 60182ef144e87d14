"""Items in the console, as a browser would use it."""

import html
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from decimal import Decimal

import httpx2
import pytest
from sqlmodel import func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.db import MAX_ID
from backend.features.items.models import Item
from backend.testing import Console, MakeUser, act

Statements = Callable[[], AbstractContextManager[list[str]]]

LAMP = {"name": "Lamp", "description": "Oak", "price": "19.90", "stock": "3", "save": "Save"}
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'"


async def only_item(session: AsyncSession) -> Item:
    return (await session.exec(select(Item))).one()


async def test_an_item_made_in_the_console_belongs_to_the_person_who_made_it(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    staff = await make_user("staff")
    browser = await console(staff.email)
    assert (await browser.post("/admin/item/create", data=LAMP | {"owner_id": "999"})).status_code == 302
    item = await only_item(session)
    assert (item.name, item.price, item.stock, item.owner_id) == ("Lamp", Decimal("19.90"), 3, staff.id)


async def test_editing_and_deleting(console: Console, make_user: MakeUser, session: AsyncSession) -> None:
    staff = await make_user("staff")
    browser = await console(staff.email)
    await browser.post("/admin/item/create", data=LAMP)
    item = await only_item(session)
    answer = await browser.post(f"/admin/item/edit/{item.id}", data=LAMP | {"price": "20", "stock": ""})
    assert answer.status_code == 302
    await session.refresh(item)
    assert (item.price, item.stock, item.version, item.owner_id) == (Decimal("20.00"), 0, 2, staff.id)
    assert f'href="http://localhost/admin/user/details/{staff.id}"' in (await browser.get("/admin/item/list")).text
    assert (await act(browser, "item", "delete", item.id)).status_code == 303
    assert "There are no items yet." in (await browser.get("/admin/item/list")).text


async def test_what_people_write_is_text_and_never_markup(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    browser = await console((await make_user("staff")).email)
    await browser.post("/admin/item/create", data=LAMP | {"name": HOSTILE, "description": HOSTILE})
    item = await only_item(session)
    assert item.name == HOSTILE
    for page in ("list", f"list?search={HOSTILE}", f"details/{item.id}", f"edit/{item.id}"):
        text = (await browser.get(f"/admin/item/{page}")).text
        assert html.escape(HOSTILE, quote=False)[:30] in text
        assert "<script>alert" not in text
        assert "<img src=x" not in text


BAD = {
    "no name": ({"name": "  "}, "String should have at least 1 character"),
    "long name": ({"name": "x" * 201}, "String should have at most 200 characters"),
    "NUL in the description": ({"description": "\x00"}, "This text has characters that cannot be stored"),
    "no price": ({"price": ""}, "This field is required"),
    "not a price": ({"price": "cheap"}, "Not a valid decimal value"),
    "a price below zero": ({"price": "-1"}, "Write an amount such as 19.99"),
    "half a cent": ({"price": "1.005"}, "Write an amount such as 19.99"),
    "a price without end": ({"price": "1e400"}, "Write an amount such as 19.99"),
    "infinite": ({"price": "Infinity"}, "Write an amount such as 19.99"),
    "not a number": ({"price": "NaN"}, "Write an amount such as 19.99"),
    "stock below zero": ({"stock": "-1"}, "Input should be greater than or equal to 0"),
    "endless stock": ({"stock": "9" * 30}, "Input should be less than or equal to 2147483647"),
    "half a piece": ({"stock": "1.5"}, "Not a valid integer value"),
}


@pytest.mark.parametrize("case", BAD)
async def test_forms_are_held_to_the_rules_of_the_api(
    console: Console, make_user: MakeUser, session: AsyncSession, case: str
) -> None:
    fields, message = BAD[case]
    browser = await console((await make_user("staff")).email)
    answer = await browser.post("/admin/item/create", data=LAMP | fields)
    assert answer.status_code == 400
    assert message in html.unescape(answer.text)
    assert (await session.exec(select(func.count()).select_from(Item))).one() == 0


@pytest.mark.parametrize("rows", [1, 60])
async def test_a_list_takes_two_statements_whatever_its_size(
    console: Console, make_user: MakeUser, session: AsyncSession, statements: Statements, rows: int
) -> None:
    staff = await make_user("staff")
    browser = await console(staff.email)
    session.add_all(Item(name=f"Lamp {number}", price=Decimal(1), owner_id=staff.id) for number in range(rows))
    await session.commit()
    await browser.get("/admin/item/create")
    with statements() as seen:
        page = await browser.get("/admin/item/list?pageSize=100&search=lamp")
    assert page.text.count("data-select ") == rows
    assert len(seen) == 2, seen


async def test_an_empty_list_says_what_to_do(console: Console, make_user: MakeUser) -> None:
    page = (await (await console((await make_user("staff")).email)).get("/admin/item/list")).text
    assert "There are no items yet." in page
    assert "Create the first item" in page


# --- the list ------------------------------------------------------------------------------------------------------


async def add_lamps(session: AsyncSession, owner_id: int | None) -> list[Item]:
    lamps = [Item(name=f"Lamp {n}", description="oak", price=Decimal(n), stock=n, owner_id=owner_id) for n in (1, 2, 3)]
    session.add_all(lamps)
    await session.commit()
    return lamps


def names(page: httpx2.Response) -> list[str]:
    return sorted(re.findall(r'aria-label="Select ([^"]+)"', page.text)[1:])


FOUND = {
    "f_price_from=2": ["Lamp 2", "Lamp 3"],
    "f_price_to=2.00": ["Lamp 1", "Lamp 2"],
    "f_price_from=1.01&f_price_to=2.99": ["Lamp 2"],
    "f_stock_from=2&f_stock_to=2": ["Lamp 2"],
    "f_stock_from=-5&f_created_at_to=2020-01-01": [],
    "search=lAmP+2": ["Lamp 2"],
    "search=2": [],
    "search=_amp": [],
    "search=%25": [],
    "search=oak": [],
    "search=OAK&anywhere=1": ["Lamp 1", "Lamp 2", "Lamp 3"],
    "search=2&anywhere=1": ["Lamp 2"],
}


@pytest.mark.parametrize("query", FOUND)
async def test_the_list_is_filtered_and_searched_by_how_names_begin(
    console: Console, make_user: MakeUser, session: AsyncSession, query: str
) -> None:
    staff = await make_user("staff")
    await add_lamps(session, staff.id)
    browser = await console(staff.email)
    page = await browser.get(f"/admin/item/list?{query}")
    assert names(page) == FOUND[query], page.text
    assert len(names(await browser.get(f"/admin/item/list?f_owner_id={staff.id}"))) == 3


BAD_NUMBERS = ["cheap", "1e400", "NaN", "1.005", "-", "%00", "%D9%A1", "9" * 13, "9" * 5000, "1,5"]


@pytest.mark.parametrize("text", BAD_NUMBERS)
@pytest.mark.parametrize("name", ["f_price_from", "f_price_to", "f_stock_from", "f_stock_to", "f_owner_id"])
async def test_numbers_that_are_none_are_refused(console: Console, make_user: MakeUser, name: str, text: str) -> None:
    browser = await console((await make_user("staff")).email)
    page = await browser.get(f"/admin/item/list?{name}={text}")
    assert page.status_code == 400
    assert re.search("write (an amount|a whole number|the number)", page.text)


async def test_nothing_that_begins_so_leads_to_a_search_within_the_texts(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    staff = await make_user("staff")
    await add_lamps(session, staff.id)
    page = (await (await console(staff.email)).get("/admin/item/list?search=oak")).text
    assert "Nothing begins with “oak”." in page
    assert re.search(r'list\?search=oak&amp;anywhere=1">Search within the texts', page)


def typed(page: httpx2.Response, **changes: str) -> dict[str, str]:
    """What a browser sends of the list's inputs; `price_7="5"` types into one."""
    inputs = re.findall(r"<input[^>]*form=\"edits\"[^>]*>", page.text)
    pairs = [(re.search(r'name="([^"]+)"', one), re.search(r'value="([^"]*)"', one)) for one in inputs]
    form = {name[1]: value[1] if value else "" for name, value in pairs if name}
    for key, text in changes.items():
        field, number = key.rsplit("_", 1)
        assert f"{number}.{field}" in form
        form[f"{number}.{field}"] = text
    return form


async def test_prices_and_stocks_are_edited_in_the_list(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    staff = await make_user("staff")
    one, two, three = await add_lamps(session, staff.id)
    browser = await console(staff.email)
    page = await browser.get("/admin/item/list?search=lamp")
    form = typed(page, **{f"price_{one.id}": "9.99", f"stock_{two.id}": "7"}) | {"query": "search=lamp"}
    answer = await browser.post("/admin/item/edit-list", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "http://localhost/admin/item/list?search=lamp")
    assert "2 items saved." in (await browser.get(answer.headers["location"])).text
    for lamp in (one, two, three):
        await session.refresh(lamp)
    assert (one.price, one.stock, one.version) == (Decimal("9.99"), 1, 2)
    assert (two.price, two.stock, two.version) == (Decimal("2.00"), 7, 2)
    assert (three.version, one.description, one.owner_id) == (1, "oak", staff.id)
    again = await browser.post("/admin/item/edit-list", data=typed(await browser.get("/admin/item/list")))
    assert answer.status_code == 303
    assert "Nothing was changed." in (await browser.get(again.headers["location"])).text


WRONG = {"cheap": "Not a valid decimal value", "-1": "amount such as 19.99", "": "This field is required"}


@pytest.mark.parametrize("text", WRONG)
async def test_in_the_list_all_rows_are_stored_or_none_and_what_was_typed_is_kept(
    console: Console, make_user: MakeUser, session: AsyncSession, text: str
) -> None:
    staff = await make_user("staff")
    one, two, _ = await add_lamps(session, staff.id)
    browser = await console(staff.email)
    page = await browser.get("/admin/item/list")
    form = typed(page, **{f"price_{one.id}": text, f"stock_{two.id}": "77"}) | {"query": "sortBy=name"}
    answer = await browser.post("/admin/item/edit-list", data=form)
    assert answer.status_code == 400
    assert WRONG[text] in html.unescape(answer.text).split(f'id="edits-{one.id}"')[1].split("</tr>")[0]
    assert f'id="edits-{two.id}"' not in answer.text
    kept = typed(answer)
    assert (kept[f"{one.id}.price"], kept[f"{two.id}.stock"]) == (text, "77")
    assert 'aria-sort="ascending"' in answer.text
    await session.refresh(two)
    assert (two.stock, two.version) == (2, 1)
    mended = kept | {f"{one.id}.price": "4"}
    assert (await browser.post("/admin/item/edit-list", data=mended)).status_code == 303
    await session.refresh(two)
    assert two.stock == 77


async def test_the_list_does_not_overwrite_what_somebody_else_changed_meanwhile(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    staff = await make_user("staff")
    one, two, _ = await add_lamps(session, staff.id)
    browser = await console(staff.email)
    page = await browser.get("/admin/item/list")
    first = typed(page, **{f"price_{one.id}": "5"})
    assert (await browser.post("/admin/item/edit-list", data=first)).status_code == 303
    late = typed(page, **{f"price_{one.id}": "6", f"price_{two.id}": "6"})
    answer = await browser.post("/admin/item/edit-list", data=late)
    assert answer.status_code == 400
    assert "Somebody else changed this record" in answer.text
    other = typed(page, **{f"price_{two.id}": "8"})  # the first row, seen as it was and left alone, is no obstacle
    assert (await browser.post("/admin/item/edit-list", data=other)).status_code == 303
    for lamp in (one, two):
        await session.refresh(lamp)
    assert (one.price, two.price) == (Decimal(5), Decimal(8))


async def test_only_who_may_edit_edits_in_the_list_and_only_those_columns(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    staff = await make_user("staff")
    one, *_ = await add_lamps(session, staff.id)
    browser = await console(staff.email)
    page = await browser.get("/admin/item/list")
    form = typed(page, **{f"stock_{one.id}": "5"})
    form |= {f"{one.id}.name": "Hijacked", f"{one.id}.name.was": "", f"{one.id}.owner_id": "1"}
    assert (await browser.post("/admin/item/edit-list", data=form)).status_code == 303
    await session.refresh(one)
    assert (one.stock, one.name, one.owner_id) == (5, "Lamp 1", staff.id)
    stranger = await console(staff.email, None)
    assert (await stranger.post("/admin/item/edit-list", data=form)).status_code == 302
    foreign = await browser.post("/admin/item/edit-list", data=form, headers={"Sec-Fetch-Site": "cross-site"})
    assert foreign.status_code == 403
    for nonsense in (
        {"x.version": "1"},
        {"99999999999.version": "1"},
        {f"{MAX_ID}.version": "1", f"{MAX_ID}.stock": "1"},
    ):
        assert (await browser.post("/admin/item/edit-list", data=nonsense)).status_code == 404
