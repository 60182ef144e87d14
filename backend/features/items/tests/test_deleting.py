"""Deleted items: gone for everybody, restored by staff, and over after a while."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.models import utc_now
from backend.features.items.housekeeping import delete_what_is_over
from backend.features.items.models import Item
from backend.testing import Console, MakeUser, act

ITEMS = "/api/v1/store/items"
LAMP = {"name": "Lamp", "price": "19.90", "stock": 3}
Environment = Callable[..., None]


@pytest.fixture
async def deleted(as_user: httpx2.AsyncClient) -> int:
    """The key of an item that its owner has deleted."""
    made = (await as_user.post(ITEMS, json=LAMP)).json()["id"]
    assert (await as_user.get(f"{ITEMS}/{made}")).status_code == 200, "it is cached now"
    assert (await as_user.delete(f"{ITEMS}/{made}")).status_code == 204
    return int(made)


async def names(client: httpx2.AsyncClient) -> list[str]:
    return [one["name"] for one in (await client.get(ITEMS)).json()["items"]]


async def test_for_the_api_a_deleted_item_is_not_there(as_user: httpx2.AsyncClient, deleted: int) -> None:
    address, v2 = f"{ITEMS}/{deleted}", f"/api/v2/store/items/{deleted}"
    answers = [
        await as_user.get(address),
        await as_user.put(address, json=LAMP),
        await as_user.patch(address, json={"stock": 1}),
        await as_user.delete(address),
        await as_user.get(f"{v2}/summary"),
        await as_user.post(f"{v2}/purchase", json={}),
    ]
    assert [one.status_code for one in answers] == [404] * len(answers)
    assert await names(as_user) == []
    paged = (await as_user.get(f"{ITEMS}/paged")).json()
    assert (paged["items"], paged["total"]) == ([], 0)


async def test_staff_see_deleted_items_when_they_ask_and_restore_them(
    console: Console, make_user: MakeUser, as_user: httpx2.AsyncClient, deleted: int
) -> None:
    browser = await console((await make_user("staff")).email)
    there = await browser.get("/admin/item/list")
    assert "Lamp" not in there.text
    assert "/admin/item/list?deleted=1" in there.text
    listed = await browser.get("/admin/item/list?deleted=1&search=lamp")
    assert "Deleted items" in listed.text
    assert "Lamp" in listed.text
    assert "/admin/item/action/restore" in listed.text
    assert "/admin/item/action/delete" not in listed.text

    page = (await browser.get(f"/admin/item/details/{deleted}")).text
    assert "/admin/item/action/restore?pk=" in page
    assert "/admin/item/edit/" not in page
    assert (await browser.get(f"/admin/item/edit/{deleted}")).status_code == 403
    assert (await act(browser, "item", "delete", deleted)).status_code == 409
    assert (await act(browser, "item", "restore", deleted)).status_code == 303
    assert (await act(browser, "item", "restore", deleted)).status_code == 409
    assert await names(as_user) == ["Lamp"]
    assert (await as_user.get(f"{ITEMS}/{deleted}")).status_code == 200
    assert "/admin/item/action/delete?pk=" in (await browser.get(f"/admin/item/details/{deleted}")).text


async def test_only_administrators_delete_for_good_and_only_what_is_deleted(
    console: Console, make_user: MakeUser, session: AsyncSession, as_user: httpx2.AsyncClient, deleted: int
) -> None:
    staff = await console((await make_user("staff")).email)
    admin = await console((await make_user("admin")).email)
    assert "action/purge" not in (await staff.get(f"/admin/item/details/{deleted}")).text
    assert (await act(staff, "item", "purge", deleted)).status_code == 403
    other = (await as_user.post(ITEMS, json=LAMP)).json()["id"]
    assert (await act(admin, "item", "purge", deleted, other)).status_code == 409
    assert (await act(admin, "item", "purge", deleted)).status_code == 303
    assert (await session.exec(select(Item.id))).all() == [other]


async def test_after_its_days_a_deleted_item_is_over(
    app: FastAPI, session: AsyncSession, environment: Environment
) -> None:
    old, young = utc_now() - timedelta(days=31), utc_now() - timedelta(days=29)
    marks = {"there": None, "young": young, "old": old, "older": old}
    session.add_all(Item(name=name, price=Decimal(1), deleted_at=mark) for name, mark in marks.items())
    await session.commit()
    environment(ITEMS__DELETED_DAYS="0")
    assert await delete_what_is_over(app.state.database) == 0
    environment(ITEMS__DELETED_DAYS="30")
    assert await delete_what_is_over(app.state.database) == 2
    assert set((await session.exec(select(Item.name))).all()) == {"there", "young"}


async def test_the_history_of_a_deleted_item_can_be_read(
    app: FastAPI, console: Console, make_user: MakeUser, deleted: int
) -> None:
    if app.state.registry.history is None:
        pytest.skip("no feature keeps a history")
    browser = await console((await make_user("staff")).email)
    page = (await browser.get(f"/admin/item/history/{deleted}")).text
    assert "Deleted by" in page
    assert "Created by" in page
    assert f"/admin/item/restore/{deleted}" not in page
    change = page.split('id="change-')[1].split('"')[0]
    assert (await browser.get(f"/admin/item/restore/{deleted}?change={change}&moment=before")).status_code == 409


async def test_who_deletes_an_item_that_is_being_edited_wins(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    staff = await make_user("staff")
    browser = await console(staff.email)
    session.add(item := Item(name="Lamp", price=Decimal(1), owner_id=staff.id))
    await session.commit()
    await browser.get(f"/admin/item/edit/{item.id}")
    await session.exec(update(Item).values(deleted_at=utc_now()))
    await session.commit()
    data = {"name": "Lantern", "price": "1", "stock": "1"}
    assert (await browser.post(f"/admin/item/edit/{item.id}", data=data)).status_code == 403
    await session.refresh(item)
    assert item.name == "Lamp"
