"""Items are answered from the cache, and never outdated for who has changed them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx2
import pytest

from backend.testing import ClientFor, Console, MakeUser

ITEMS = "/api/v1/store/items"
LAMP = {"name": "Lamp", "price": "19.99", "stock": 3}
Statements = Callable[[], AbstractContextManager[list[str]]]


async def made(client: httpx2.AsyncClient) -> dict[str, Any]:
    item: dict[str, Any] = (await client.post(ITEMS, json=LAMP)).json()
    return item


@pytest.mark.parametrize("path", ["/{id}", "", "?limit=100", "/paged?page_size=100"])
async def test_what_was_asked_before_takes_no_sql(
    as_user: httpx2.AsyncClient, as_staff: httpx2.AsyncClient, statements: Statements, path: str
) -> None:
    url = ITEMS + path.format(**await made(as_user))
    first = await as_user.get(url)
    await as_staff.get(ITEMS)  # so that the caller is known
    with statements() as seen:
        second = await as_user.get(url)
        third = await as_staff.get(url)
    assert seen == []
    assert first.content == second.content == third.content
    assert (await as_user.get(url, headers={"If-None-Match": first.headers["ETag"]})).status_code == 304


async def test_the_item_and_both_lists_show_every_change_at_once(as_user: httpx2.AsyncClient) -> None:
    url = f"{ITEMS}/{(await made(as_user))['id']}"

    async def stocks() -> list[int]:
        lists = [(await as_user.get(ITEMS + path)).json()["items"] for path in ("", "/paged")]
        return [(await as_user.get(url)).json()["stock"], *(one["stock"] for (one,) in lists)]

    assert await stocks() == [3, 3, 3]
    await as_user.patch(url, json={"stock": 4})
    assert await stocks() == [4, 4, 4]
    await as_user.put(url, json=LAMP | {"stock": 5})
    assert await stocks() == [5, 5, 5]
    await made(as_user)
    assert len((await as_user.get(ITEMS)).json()["items"]) == 2
    await as_user.delete(url)
    assert (await as_user.get(url)).status_code == 404
    assert len((await as_user.get(ITEMS)).json()["items"]) == 1


async def test_a_change_in_the_console_shows_at_once(
    as_user: httpx2.AsyncClient, console: Console, make_user: MakeUser
) -> None:
    url = f"{ITEMS}/{(await made(as_user))['id']}"
    await as_user.get(url)
    browser = await console((await make_user("staff")).email)
    form = {"name": "Lamp", "description": "", "price": "5", "stock": "9", "save": "Save"}
    assert (await browser.post(f"/admin/item/edit/{url.rsplit('/', 1)[1]}", data=form)).status_code == 302
    assert (await as_user.get(url)).json()["stock"] == 9


async def test_an_item_without_its_owner_is_another_version(
    make_user: MakeUser, client_for: ClientFor, as_admin: httpx2.AsyncClient
) -> None:
    owner = await make_user()
    item = await made(client_for(owner))
    url = f"{ITEMS}/{item['id']}"
    before = await as_admin.get(url)
    assert (await as_admin.delete(f"/api/v1/users/{owner.id}")).status_code == 204
    after = await as_admin.get(url, headers={"If-None-Match": before.headers["ETag"]})
    assert (after.status_code, after.json()["owner_id"], after.json()["version"]) == (200, None, 2)
