"""The rules about items. The API and the console both call these functions."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import ColumnElement, func, or_
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Principal
from backend.core.errors import Forbidden, NotFound
from backend.core.paging import PageQuery
from backend.features.items.models import Item


def _matching(q: str) -> list[ColumnElement[bool]]:
    columns = (col(Item.name), col(Item.description))
    return [or_(*(column.icontains(q, autoescape=True) for column in columns))] if q else []


async def list_items(session: AsyncSession, *, q: str = "", before: int | None = None, limit: int) -> Sequence[Item]:
    """Up to `limit` items, newest first, from the one before id `before` on (keyset: any page costs the same)."""
    conditions = _matching(q)
    if before is not None:
        conditions.append(col(Item.id) < before)
    statement = select(Item).where(*conditions).order_by(col(Item.id).desc()).limit(limit)
    return (await session.exec(statement)).all()


async def page_items(session: AsyncSession, query: PageQuery, *, q: str = "") -> tuple[Sequence[Item], int]:
    """One numbered page, newest first, and the number of items that match."""
    conditions = _matching(q)
    total = (await session.exec(select(func.count()).select_from(Item).where(*conditions))).one()
    statement = select(Item).where(*conditions).order_by(col(Item.id).desc())
    rows = (await session.exec(statement.offset(query.offset).limit(query.page_size))).all()
    return rows, total


async def get_item(session: AsyncSession, item_id: int) -> Item:
    item = await session.get(Item, item_id)
    if item is None:
        raise NotFound("There is no such item")
    return item


async def get_own_item(session: AsyncSession, item_id: int, *, caller: Principal) -> Item:
    """An item that the caller may change; NotFound, or Forbidden when it is somebody else's."""
    item = await get_item(session, item_id)
    if item.owner_id != caller.id and not caller.may("items:manage"):
        raise Forbidden("This item belongs to somebody else")
    return item


async def create_item(
    session: AsyncSession, *, owner_id: int, name: str, price: Decimal, description: str = "", stock: int = 0
) -> Item:
    item = Item(owner_id=owner_id, name=name, price=price, description=description, stock=stock)
    session.add(item)
    await session.flush()
    return item


async def update_item(session: AsyncSession, item: Item, **fields: Any) -> Item:
    for name, value in fields.items():
        setattr(item, name, value)
    session.add(item)
    await session.flush()
    return item


async def delete_item(session: AsyncSession, item: Item) -> None:
    await session.delete(item)
    await session.flush()
