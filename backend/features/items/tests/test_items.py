"""The items API, through HTTP, on every database."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.preconditions import etag
from backend.features.items.models import Item
from backend.features.items.schemas import ItemOut
from backend.testing import ClientFor, MakeUser

ITEMS = "/api/v1/store/items"
LAMP = {"name": "Lamp", "description": "Oak, with a linen shade", "price": "19.99", "stock": 3}
Statements = Callable[[], AbstractContextManager[list[str]]]


async def create(client: httpx2.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post(ITEMS, json=LAMP | fields)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


async def test_a_created_item_can_be_read_where_location_says(as_user: httpx2.AsyncClient) -> None:
    created = await as_user.post(ITEMS, json=LAMP)
    assert created.status_code == 201
    read = await as_user.get(created.headers["Location"])
    assert read.json() == created.json()
    assert {name: read.json()[name] for name in LAMP} == LAMP
    assert created.headers["ETag"] == read.headers["ETag"] == etag(1, ItemOut)


async def test_the_etag_says_which_version_in_which_shape_and_if_match_asks_for_the_version(
    as_user: httpx2.AsyncClient,
) -> None:
    class Later(ItemOut):
        colour: str

    assert etag(1, Later) != etag(1, ItemOut), "a release that adds a field: nobody keeps an answer without it"
    path = f"{ITEMS}/{(await create(as_user))['id']}"
    changed = await as_user.patch(path, json={"stock": 1}, headers={"If-Match": etag(1, Later)})
    assert (changed.status_code, changed.headers["ETag"]) == (200, etag(2, ItemOut))
    late = await as_user.patch(path, json={"stock": 2}, headers={"If-Match": etag(1, ItemOut)})
    assert late.status_code == 412


@pytest.mark.parametrize("price", ["0", "0.01", "9999999999.99", "5", "1.5"])
async def test_prices_are_kept_to_the_cent(as_user: httpx2.AsyncClient, price: str) -> None:
    item = await create(as_user, price=price)
    assert (await as_user.get(f"{ITEMS}/{item['id']}")).json()["price"] == f"{float(price):.2f}"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": " padded "},
        {"name": "x" * 201},
        {"name": "nul\x00"},
        {"description": "nul\x00"},
        {"name": None},
        {"price": "-1"},
        {"price": "1.001"},
        {"price": "10000000000"},
        {"price": "NaN"},
        {"price": 19.99},
        {"stock": "3"},
        {"stock": True},
        {"price": "cheap"},
        {"stock": -1},
        {"stock": 2**31},
        {"stock": 1.5},
        {"colour": "red"},
        {"owner_id": 1},
        {"id": 7},
    ],
    ids=str,
)
async def test_bad_values_are_refused_field_by_field(as_user: httpx2.AsyncClient, wrong: dict[str, Any]) -> None:
    answer = await as_user.post(ITEMS, json=LAMP | wrong)
    assert answer.status_code == 422
    (field,) = wrong
    assert [one["field"] for one in answer.json()["error"]["details"]] == [f"body.{field}"]


async def test_put_replaces_patch_changes(as_user: httpx2.AsyncClient) -> None:
    item = await create(as_user)
    path = f"{ITEMS}/{item['id']}"
    patched = (await as_user.patch(path, json={"stock": 9})).json()
    assert (patched["stock"], patched["name"], patched["version"]) == (9, "Lamp", 2)
    replaced = (await as_user.put(path, json={"name": "Chair", "price": "5"})).json()
    assert (replaced["name"], replaced["description"], replaced["stock"], replaced["version"]) == ("Chair", "", 0, 3)


async def test_a_patch_with_null_is_refused_rather_than_guessed_at(as_user: httpx2.AsyncClient) -> None:
    item = await create(as_user)
    assert (await as_user.patch(f"{ITEMS}/{item['id']}", json={"name": None})).status_code == 422


async def test_an_empty_patch_changes_nothing(as_user: httpx2.AsyncClient) -> None:
    item = await create(as_user)
    assert (await as_user.patch(f"{ITEMS}/{item['id']}", json={})).json() == item


async def test_a_deleted_item_is_gone(as_user: httpx2.AsyncClient) -> None:
    path = f"{ITEMS}/{(await create(as_user))['id']}"
    assert (await as_user.delete(path)).status_code == 204
    assert (await as_user.get(path)).status_code == 404
    assert (await as_user.delete(path)).status_code == 404


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_a_stale_etag_is_412_with_the_current_version(as_user: httpx2.AsyncClient, method: str) -> None:
    path = f"{ITEMS}/{(await create(as_user))['id']}"
    await as_user.patch(path, json={"stock": 4})
    body: dict[str, Any] = {} if method == "DELETE" else {"json": LAMP}
    stale = await as_user.request(method, path, headers={"If-Match": '"1"'}, **body)
    assert stale.status_code == 412
    assert stale.json()["error"]["details"] == {"current_version": 2}
    assert (await as_user.get(path)).json()["stock"] == 4
    fresh = await as_user.request(method, path, headers={"If-Match": '"1", "2"'}, **body)
    assert fresh.status_code in (200, 204)


@pytest.mark.parametrize(("header", "status"), [("*", 200), ('"1"', 200), ('W/"1"', 412), ("1", 412), ("", 412)])
async def test_if_match_compares_strongly(as_user: httpx2.AsyncClient, header: str, status: int) -> None:
    path = f"{ITEMS}/{(await create(as_user))['id']}"
    answer = await as_user.patch(path, json={"stock": 1}, headers={"If-Match": header})
    assert answer.status_code == status


async def test_everybody_reads_only_the_owner_and_staff_change(
    as_user: httpx2.AsyncClient, as_staff: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor
) -> None:
    path = f"{ITEMS}/{(await create(as_user))['id']}"
    other = client_for(await make_user())
    assert (await other.get(path)).status_code == 200
    for method, body in (("PUT", LAMP), ("PATCH", {"stock": 0}), ("DELETE", None)):
        assert (await other.request(method, path, json=body)).status_code == 403
    assert (await as_staff.patch(path, json={"stock": 1})).status_code == 200


async def test_each_permission_opens_what_it_names(make_user: MakeUser, client_for: ClientFor) -> None:
    staff = await make_user("staff")
    path = f"{ITEMS}/{(await create(client_for(await make_user())))['id']}"
    reader, writer = client_for(staff, "items:read"), client_for(staff, "items:write")
    assert (await reader.get(path)).status_code == 200
    assert (await reader.patch(path, json={"stock": 1})).status_code == 403
    assert (await writer.get(path)).status_code == 403
    assert (await writer.patch(path, json={"stock": 1})).status_code == 403, "managing was left out of the token"
    manager = client_for(staff, "items:write", "items:manage")
    assert (await manager.patch(path, json={"stock": 1})).status_code == 200


async def test_an_item_outlives_its_owner(
    make_user: MakeUser, client_for: ClientFor, as_admin: httpx2.AsyncClient
) -> None:
    owner = await make_user()
    path = f"{ITEMS}/{(await create(client_for(owner)))['id']}"
    assert (await as_admin.delete(f"/api/v1/users/{owner.id}")).status_code == 204
    assert (await as_admin.get(path)).json()["owner_id"] is None


@pytest.mark.parametrize("bad", ["0", "-1", "abc", "1.5", str(2**31), str(10**30), "%00", "1%20or%201=1"])
async def test_bad_ids_are_never_a_500(as_user: httpx2.AsyncClient, bad: str) -> None:
    for method in ("GET", "PUT", "PATCH", "DELETE"):
        answer = await as_user.request(method, f"{ITEMS}/{bad}", json=LAMP)
        assert answer.status_code in (404, 422)
        assert answer.json()["error"]["code"] in ("not_found", "invalid")


async def test_the_list_is_newest_first_and_the_cursor_leads_through_all(as_user: httpx2.AsyncClient) -> None:
    names = [f"Thing {number}" for number in range(7)]
    for name in names:
        await create(as_user, name=name)
    seen: list[str] = []
    url: str | None = f"{ITEMS}?limit=3&q=Thing"
    while url:
        answer = await as_user.get(url)
        seen += [item["name"] for item in answer.json()["items"]]
        url = answer.links["next"]["url"] if answer.json()["next"] else None
        assert ("next" in answer.links) == bool(url)
    assert seen == names[::-1]


async def test_the_cursor_neither_repeats_nor_skips_when_items_come_and_go(as_user: httpx2.AsyncClient) -> None:
    ids = [(await create(as_user))["id"] for _ in range(4)]
    first = (await as_user.get(ITEMS, params={"limit": 2})).json()
    await create(as_user, name="Late")
    await as_user.delete(f"{ITEMS}/{ids[2]}")
    second = (await as_user.get(ITEMS, params={"limit": 2, "cursor": first["next"]})).json()
    assert [item["id"] for item in first["items"] + second["items"]][:4] == ids[::-1]


@pytest.mark.parametrize("cursor", ["", "abc", "LTE", "MA", "OTk5OTk5OTk5OTk5", "MQ==", "\x00", "é"])
async def test_a_cursor_that_is_not_ours_is_400(as_user: httpx2.AsyncClient, cursor: str) -> None:
    answer = await as_user.get(ITEMS, params={"cursor": cursor})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")


async def test_pages_have_numbers_and_a_total(as_user: httpx2.AsyncClient) -> None:
    for number in range(5):
        await create(as_user, name=f"Numbered {number}")
    page = (await as_user.get(f"{ITEMS}/paged", params={"page": 2, "page_size": 2, "q": "Numbered"})).json()
    assert [item["name"] for item in page["items"]] == ["Numbered 2", "Numbered 1"]
    assert (page["page"], page["page_size"], page["total"], page["pages"]) == (2, 2, 5, 3)
    beyond = (await as_user.get(f"{ITEMS}/paged", params={"page": 2**31 - 1, "page_size": 100, "q": "Numbered"})).json()
    assert (beyond["items"], beyond["total"]) == ([], 5)


@pytest.mark.parametrize("query", ["page=0", "page=x", "page_size=0", "page_size=101", "page=2147483648", "q=%00"])
async def test_bad_page_numbers_are_422(as_user: httpx2.AsyncClient, query: str) -> None:
    assert (await as_user.get(f"{ITEMS}/paged?{query}")).status_code == 422


@pytest.mark.parametrize(
    ("q", "found"), [("lamp", 1), ("LINEN", 1), ("100%", 1), ("%", 1), ("_", 0), ("nothing like it", 0)]
)
async def test_search_looks_for_the_text_itself(as_user: httpx2.AsyncClient, q: str, found: int) -> None:
    await create(as_user)
    await create(as_user, name="Shirt", description="100% cotton")
    assert len((await as_user.get(ITEMS, params={"q": q})).json()["items"]) == found


async def test_any_script_and_emoji_survive(as_user: httpx2.AsyncClient) -> None:
    name = "Лампа ランプ 🛋️ 'q' \"dq\" \\ <b>"
    item = await create(as_user, name=name)
    assert (await as_user.get(f"{ITEMS}/{item['id']}")).json()["name"] == name


async def test_statements_stay_few_however_many_items(
    as_user: httpx2.AsyncClient, session: AsyncSession, statements: Statements
) -> None:
    session.add_all(Item(name=f"Item {number}", price=Decimal(number)) for number in range(1, 121))
    await session.commit()
    some = (await as_user.get(ITEMS, params={"limit": 1})).json()["items"][0]["id"]
    for path, most in ((f"{ITEMS}/{some}", 2), (f"{ITEMS}?limit=100", 2), (f"{ITEMS}/paged?page_size=100", 3)):
        with statements() as seen:
            assert (await as_user.get(path)).status_code == 200
        assert 1 <= len(seen) <= most, seen


async def test_the_routes_are_under_v2_as_well(as_user: httpx2.AsyncClient) -> None:
    answer = await as_user.post(ITEMS.replace("v1", "v2"), json=LAMP)
    assert answer.headers["Location"].startswith("/api/v2/store/items/")


async def test_without_the_feature_its_routes_are_gone(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(FEATURES_OFF="items")
    assert not [path for path in app.openapi()["paths"] if "items" in path]
