"""Buying items, and what there is to know before: price and stock."""

from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import select, update
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Principal
from backend.core.cache import invalidate
from backend.core.db import Database
from backend.core.errors import Conflict, NotFound
from backend.core.events import emit
from backend.core.models import utc_now
from backend.core.templates import send_template
from backend.features.items.events import ItemPurchased
from backend.features.items.models import Item
from backend.features.items.schemas import Inventory, ItemSummary, Price, PurchaseOut
from backend.features.items.service import NO_SUCH_ITEM, THERE
from backend.features.users.service import get_user

TEMPLATES = Path(__file__).parent / "templates"


async def _row(session: AsyncSession, item_id: int, *columns: Any) -> Any:
    statement: Any = select(*columns).where(col(Item.id) == item_id, THERE)
    row = (await session.exec(statement)).first()
    if row is None:
        raise NotFound(NO_SUCH_ITEM)
    return row


async def price_of(session: AsyncSession, item_id: int) -> Price:
    row = await _row(session, item_id, Item.name, Item.price)
    return Price(name=row.name, price=row.price)


async def inventory_of(session: AsyncSession, item_id: int) -> Inventory:
    row = await _row(session, item_id, Item.stock)
    return Inventory(stock=row.stock, available=row.stock > 0)


async def summarise(database: Database, item_id: int) -> ItemSummary:
    """Price and inventory, asked for at the same time, as if different systems kept them: each as of its own moment."""
    price, inventory = await database.at_once(
        lambda session: price_of(session, item_id), lambda session: inventory_of(session, item_id)
    )
    return ItemSummary(id=item_id, price=price, inventory=inventory)


async def purchase(session: AsyncSession, item_id: int, *, quantity: int, buyer: Principal) -> PurchaseOut:
    """Take some of an item from the stock, never more than there are; the buyer gets a receipt by mail.

    One UPDATE decides, so that of many buyers at once none gets what another took. It counts as an edit of the item.
    """
    enough = col(Item.id) == item_id, col(Item.stock) >= quantity, THERE
    taken = {"stock": col(Item.stock) - quantity, "version": col(Item.version) + 1, "updated_at": utc_now()}
    statement = update(Item).where(*enough).values(taken).execution_options(synchronize_session=False)
    bought = (await session.exec(statement)).rowcount == 1
    row = await _row(session, item_id, Item.name, Item.price, Item.stock)
    if not bought:
        raise Conflict("There are not that many in stock", details={"stock": row.stock})
    invalidate(session, "items", f"item:{item_id}")
    price: Decimal = row.price
    made = PurchaseOut(
        item_id=item_id, name=row.name, quantity=quantity, price=price, total=price * quantity, left=row.stock
    )
    await emit(
        session,
        ItemPurchased(user_id=buyer.id, item_id=item_id, quantity=quantity, price=price, left=row.stock),
    )
    to = (await get_user(session, buyer.id)).email
    send_template(session, TEMPLATES, "receipt", to=to, subject=f"Your purchase: {row.name}", purchase=made)
    return made
