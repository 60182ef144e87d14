"""The rules about items. The API and the console both call these functions."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, bindparam, or_, select, update
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Principal
from backend.core.cache import invalidate
from backend.core.errors import Conflict, Forbidden, NotFound
from backend.core.models import is_deleted, key_of, utc_now
from backend.core.paging import PageQuery, Total, paged
from backend.core.prepared import Prepared
from backend.core.read_session import rows
from backend.core.schemas import columns_of
from backend.core.writing_session import store, store_last
from backend.features.items.figures import CREATED
from backend.features.items.models import Item
from backend.features.items.schemas import ItemIn, ItemOut
from backend.features.users.events import AccountDeleted

NO_SUCH_ITEM = "There is no such item"
NOT_DELETED = "This item is not deleted"
PURGED_AT_ONCE = 500  # items deleted for good in one transaction
THERE = col(Item.deleted_at).is_(None)
SHOWN: Any = select(*columns_of(Item, ItemOut)).where(THERE)
# Made once: making them, and finding their columns in what comes back, costs a tenth of the request.
ONE = Prepared(SHOWN.where(col(Item.id) == bindparam("item_id")))
NEWEST: Any = SHOWN.order_by(col(Item.id).desc())
FIRST = Prepared(NEWEST.limit(bindparam("at_most")))
FOLLOWING = Prepared(FIRST.statement.where(col(Item.id) < bindparam("before")))


def _matching(q: str) -> list[ColumnElement[bool]]:
    columns = (col(Item.name), col(Item.description))
    return [or_(*(column.icontains(q, autoescape=True) for column in columns))] if q else []


async def list_items(session: AsyncSession, *, q: str = "", before: int | None = None, limit: int) -> Sequence[Any]:
    """Up to `limit` items, newest first, from the one before id `before` on (keyset: any page costs the same)."""
    prepared = FIRST if before is None else FOLLOWING
    statement = prepared.statement.where(*_matching(q)) if q else prepared
    return await rows(session, statement, {"at_most": limit, "before": before})


async def page_items(session: AsyncSession, query: PageQuery, *, q: str = "") -> tuple[Sequence[Any], Total]:
    """One numbered page, newest first, and the number of items that match."""
    return await paged(session, NEWEST.where(*_matching(q)), query)


async def show_item(session: AsyncSession, item_id: int) -> Any:
    """What `ItemOut` says of an item, for those who only read it."""
    found = await rows(session, ONE, {"item_id": item_id})
    if not found:
        raise NotFound(NO_SUCH_ITEM)
    return found[0]


async def get_item(session: AsyncSession, item_id: int) -> Item:
    item = await session.get(Item, item_id)
    if item is None or is_deleted(item):
        raise NotFound(NO_SUCH_ITEM)
    return item


async def get_own_item(session: AsyncSession, item_id: int, *, caller: Principal) -> Item:
    """An item that the caller may change; NotFound, or Forbidden when it is somebody else's."""
    item = await get_item(session, item_id)
    if item.owner_id != caller.id and not caller.may("items:manage"):
        raise Forbidden("This item belongs to somebody else")
    return item


async def create_item(session: AsyncSession, *, owner_id: int, item: ItemIn, last: bool = False) -> Any:
    """Put an item up for sale; returns it, or a row of its columns. `last`: nothing else is asked of this session."""
    invalidate(session, "items")
    CREATED.add(session)
    return await (store_last if last else store)(session, Item, owner_id=owner_id, **item.model_dump())


async def create_items(session: AsyncSession, *, owner_id: int, many: Sequence[ItemIn]) -> list[int]:
    """Store many items in one flush, which takes few statements however many they are; their keys, in order."""
    made = [Item(owner_id=owner_id, **item.model_dump()) for item in many]
    session.add_all(made)
    await session.flush()
    invalidate(session, "items")
    CREATED.add(session, many=len(made))
    return [key_of(item) for item in made]


async def update_item(session: AsyncSession, item: Item, **fields: Any) -> Item:
    for name, value in fields.items():
        setattr(item, name, value)
    session.add(item)
    await session.flush()
    invalidate(session, "items", f"item:{item.id}")
    return item


async def delete_item(session: AsyncSession, item: Item) -> None:
    """It is gone for everybody, and can be restored for a while. Conflict when it is deleted already."""
    if is_deleted(item):
        raise Conflict("This item is deleted already")
    await update_item(session, item, deleted_at=utc_now())


async def restore_item(session: AsyncSession, item: Item) -> None:
    """Put a deleted item up for sale again. Conflict when it is not deleted."""
    if not is_deleted(item):
        raise Conflict(NOT_DELETED)
    await update_item(session, item, deleted_at=None)


async def purge_item(session: AsyncSession, item: Item) -> None:
    """End a deleted item for good. Conflict when it is not deleted."""
    if not is_deleted(item):
        raise Conflict(NOT_DELETED)
    await session.delete(item)
    await session.flush()


async def purge_deleted(session: AsyncSession, *, before: datetime, batch: int = PURGED_AT_ONCE) -> int:
    """End one batch of what was deleted before then; returns how many. Several processes may do it at once."""
    old: Any = select(Item).where(col(Item.deleted_at) < before).order_by(col(Item.id)).limit(batch)
    items = (await session.exec(old.with_for_update(skip_locked=True))).scalars().all()
    for item in items:  # one by one, so that the audit log keeps what they were
        await session.delete(item)
    await session.flush()
    return len(items)


async def forget_owner(session: AsyncSession, deleted: AccountDeleted) -> None:
    """The database would do it too, but without a new version: the `ETag` of another content would be the same."""
    gone: dict[str, Any] = {"owner_id": None, "version": Item.version + 1, "updated_at": utc_now()}
    await session.exec(update(Item).where(col(Item.owner_id) == deleted.user_id).values(**gone))
    invalidate(session, "items", "item")
