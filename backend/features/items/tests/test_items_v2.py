"""What v2 adds to items: many at once, a summary, buying without ever selling what is not there."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import col, delete, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.features.items.models import Item
from backend.features.users.models import User
from backend.main import create_app
from backend.testing import (
    PASSWORD_HASH,
    ClientFor,
    Mailbox,
    MakeUser,
    new_client,
    session_of,
    settings_for,
    text_of,
    token_for,
)

ITEMS = "/api/v2/store/items"
LAMP: dict[str, Any] = {"name": "Lamp", "price": "19.99", "stock": 3}
Statements = Callable[[], AbstractContextManager[list[str]]]


async def new_item(client: httpx2.AsyncClient, **fields: Any) -> str:
    answer = await client.post(ITEMS, json=LAMP | fields)
    assert answer.status_code == 201, answer.text
    return f"{ITEMS}/{answer.json()['id']}"


# --- many at once ----------------------------------------------------------------------------------------------------


async def test_many_items_are_stored_in_order_by_few_statements(
    as_user: httpx2.AsyncClient, session: AsyncSession, statements: Statements, database_name: str
) -> None:
    assert (await as_user.get("/api/v2/auth/me")).status_code == 200  # known from here on
    body = {"items": [LAMP | {"name": f"Lamp {number}"} for number in range(1000)]}
    with statements() as seen:
        answer = await as_user.post(f"{ITEMS}/bulk", json=body)
    assert answer.status_code == 201, answer.text
    ids = answer.json()["ids"]
    names = select(Item.name).where(col(Item.id).in_(ids)).order_by(col(Item.id))
    assert list((await session.exec(names)).all()) == [f"Lamp {number}" for number in range(1000)]
    assert ids == sorted(ids)
    if database_name != "sqlite":  # a call in our own process: SQLAlchemy makes one per row there
        assert len([one for one in seen if one.startswith("INSERT")]) <= 4, [one[:60] for one in seen]


@pytest.mark.parametrize(
    "body",
    [{}, {"items": []}, {"items": [LAMP] * 1001}, {"items": [LAMP, {"name": "no price"}]}, {"items": LAMP}],
    ids=["nothing", "none", "too many", "one bad", "no list"],
)
async def test_bad_bulk_is_422_and_stores_none(
    as_user: httpx2.AsyncClient, session: AsyncSession, body: dict[str, Any]
) -> None:
    assert (await as_user.post(f"{ITEMS}/bulk", json=body)).status_code == 422
    assert (await session.exec(select(func.count()).select_from(Item))).one() == 0


async def test_bulk_needs_the_right_to_write(make_user: MakeUser, client_for: ClientFor) -> None:
    reader = client_for(await make_user(), "items:read", "items:buy")
    assert (await reader.post(f"{ITEMS}/bulk", json={"items": [LAMP]})).status_code == 403


# --- summary ---------------------------------------------------------------------------------------------------------


async def test_a_summary_has_price_and_inventory(as_user: httpx2.AsyncClient) -> None:
    path = await new_item(as_user, stock=0)
    assert (await as_user.get(f"{path}/summary")).json() == {
        "id": int(path.rsplit("/", 1)[-1]),
        "price": {"name": "Lamp", "price": "19.99"},
        "inventory": {"stock": 0, "available": False},
    }
    assert (await as_user.get(f"{ITEMS}/{2**31 - 1}/summary")).status_code == 404
    assert (await as_user.get(f"{ITEMS}/0/summary")).status_code == 422


# --- buying ----------------------------------------------------------------------------------------------------------


async def test_a_purchase_takes_from_the_stock_and_sends_a_receipt(
    make_user: MakeUser, client_for: ClientFor, as_user: httpx2.AsyncClient, mailbox: Mailbox
) -> None:
    path = await new_item(as_user, name="Tea & <b>pot", price="9999999999.99", stock=1000)
    buyer = await make_user()
    bought = await client_for(buyer).post(f"{path}/purchase", json={"quantity": 999})
    assert bought.status_code == 200, bought.text
    assert (bought.json()["left"], bought.json()["total"]) == (1, "9989999999990.01")
    [mail] = await mailbox.mails()
    assert mail["To"] == buyer.email
    assert "999 of Tea & <b>pot at 9999999999.99" in text_of(mail)
    assert "Total: 9989999999990.01" in text_of(mail)
    html = mail.get_body(("html",))
    assert html is not None
    assert "Tea &amp; &lt;b&gt;pot" in html.get_content()


async def test_what_is_not_there_is_not_sold(as_user: httpx2.AsyncClient, mailbox: Mailbox) -> None:
    path = await new_item(as_user)
    refused = await as_user.post(f"{path}/purchase", json={"quantity": 4})
    assert (refused.status_code, refused.json()["error"]["details"]) == (409, {"stock": 3})
    assert (await as_user.get(path)).json()["stock"] == 3
    assert (await as_user.post(f"{ITEMS}/{2**31 - 1}/purchase", json={})).status_code == 404
    assert await mailbox.mails() == []


@pytest.mark.parametrize("quantity", [0, -1, 1001, 1.5, "2", None, True])
async def test_bad_quantities_are_422(as_user: httpx2.AsyncClient, quantity: Any) -> None:
    path = await new_item(as_user)
    assert (await as_user.post(f"{path}/purchase", json={"quantity": quantity})).status_code == 422


async def test_a_purchase_is_an_edit_that_a_stale_etag_does_not_overwrite(as_user: httpx2.AsyncClient) -> None:
    path = await new_item(as_user)
    assert (await as_user.post(f"{path}/purchase", json={})).status_code == 200
    stale = await as_user.patch(path, json={"stock": 3}, headers={"If-Match": '"1"'})
    assert stale.status_code == 412


async def test_buying_is_a_right_of_its_own(
    as_user: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor
) -> None:
    path, somebody = await new_item(as_user), await make_user()
    reader, buyer = client_for(somebody, "items:read", "items:write"), client_for(somebody, "items:buy")
    assert (await reader.post(f"{path}/purchase", json={})).status_code == 403
    assert (await buyer.post(f"{path}/purchase", json={})).status_code == 200


async def test_items_and_purchases_are_counted(app: FastAPI, as_user: httpx2.AsyncClient) -> None:
    before = app.state.tallies.copy()
    many = {"items": [LAMP] * 3}
    ids = (await as_user.post(f"{ITEMS}/bulk", json=many)).json()["ids"]
    answers = [await as_user.post(f"{ITEMS}/{ids[0]}/purchase", json={"quantity": quantity}) for quantity in (1, 4)]
    assert [one.status_code for one in answers] == [200, 409]
    grown = app.state.tallies - before
    assert (grown["items_created", ""], grown["item_purchases", ""]) == (3, 1)


async def test_a_purchase_is_in_the_audit_log(as_user: httpx2.AsyncClient, session: AsyncSession) -> None:
    models = pytest.importorskip("backend.features.audit.models")
    path = await new_item(as_user)
    await as_user.post(f"{path}/purchase", json={"quantity": 2})
    entry = (await session.exec(select(models.AuditEntry).where(models.AuditEntry.action == "item.purchased"))).one()
    assert entry.details == {"item_id": int(path.rsplit("/", 1)[-1]), "quantity": 2, "price": "19.99", "left": 1}


# --- at once, on the real pool ---------------------------------------------------------------------------------------


async def test_many_buyers_at_once_never_get_more_than_there_is(committed_database_url: str) -> None:
    app: FastAPI = create_app(settings_for(committed_database_url))
    async with app.router.lifespan_context(app):
        database = app.state.database
        async with database.session() as session:
            user = User(email="rush@example.com", password_hash=PASSWORD_HASH)
            session.add(user)
            await session.flush()
            item = Item(name="Last ones", price=Decimal(1), stock=7, owner_id=user.id)
            session.add_all([session_of(user), item])
            await session.commit()
        async with new_client(app, headers={"Authorization": f"Bearer {token_for(app, user)}"}) as client:
            path = f"{ITEMS}/{item.id}"
            answers = await asyncio.gather(
                *(client.post(f"{path}/purchase", json={"quantity": 2}) for _ in range(12)),
                *(client.get(f"{path}/summary") for _ in range(12)),
            )
            codes = [answer.status_code for answer in answers[:12]]
            assert (codes.count(200), codes.count(409)) == (3, 9)
            assert {answer.status_code for answer in answers[12:]} == {200}
            assert (await client.get(path)).json()["stock"] == 1
        async with database.session() as session:
            await session.exec(delete(Item).where(col(Item.id) == item.id))
            await session.delete(user)
            await session.commit()
