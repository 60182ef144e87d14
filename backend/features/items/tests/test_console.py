"""Items in the console, as a browser would use it."""

import html
from collections.abc import Callable
from contextlib import AbstractContextManager
from decimal import Decimal

import pytest
from sqlmodel import func, select
from sqlmodel.ext.asyncio.session import AsyncSession

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
async def test_a_list_takes_two_statements_more_than_any_page_whatever_its_size(
    console: Console, make_user: MakeUser, session: AsyncSession, statements: Statements, rows: int
) -> None:
    staff = await make_user("staff")
    browser = await console(staff.email)
    session.add_all(Item(name=f"Lamp {number}", price=Decimal(1), owner_id=staff.id) for number in range(rows))
    await session.commit()
    with statements() as any_page:
        await browser.get("/admin/item/create")
    with statements() as seen:
        page = await browser.get("/admin/item/list?pageSize=100&search=lamp")
    assert page.text.count("data-select ") == rows
    assert len(seen) == len(any_page) + 2, seen


async def test_an_empty_list_says_what_to_do(console: Console, make_user: MakeUser) -> None:
    page = (await (await console((await make_user("staff")).email)).get("/admin/item/list")).text
    assert "There are no items yet." in page
    assert "Create the first item" in page
