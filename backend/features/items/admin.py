"""Items in the console."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from markupsafe import Markup
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request
from wtforms import DecimalField, TextAreaField

from backend.core.auth import Principal, Rank
from backend.core.console import ConsoleView
from backend.core.console_actions import record_action
from backend.core.console_filters import DateRange, Filter, NumberRange, Related
from backend.features.items import service
from backend.features.items.models import Item
from backend.features.items.schemas import ItemIn
from backend.features.users.admin import show_account


def show_owner(item: Item, _name: str, request: Request) -> Markup:
    return show_account(item.owner_id, request)


class ItemView(ConsoleView, model=Item):
    scope, changes = "items", Rank.STAFF
    can_import = True
    removal = "Delete", "It is gone from the store. It can be restored from the list of deleted items.", "deleted"
    form_schema = ItemIn
    belongs_to: ClassVar[Mapping[Any, str]] = {Item.owner_id: "user"}
    filters: ClassVar[tuple[Filter, ...]] = (
        NumberRange(Item.price),
        NumberRange(Item.stock),
        DateRange(Item.created_at),
        Related(Item.owner_id, "user"),
    )
    prefix_searchable: ClassVar[tuple[Any, ...]] = (Item.name,)
    column_edit_list: ClassVar[Sequence[Any]] = (Item.price, Item.stock)
    icon = "fa-solid fa-box"
    column_list: ClassVar[list[Any]] = [Item.id, Item.name, Item.price, Item.stock, Item.owner_id, Item.created_at]
    column_details_list: ClassVar[list[Any]] = [
        *column_list,
        Item.description,
        Item.updated_at,
        Item.deleted_at,
        Item.version,
    ]
    column_searchable_list: ClassVar[list[Any]] = [Item.name, Item.description]
    column_sortable_list: ClassVar[list[Any]] = [Item.id, Item.name, Item.price, Item.stock, Item.created_at]
    column_formatters: ClassVar[dict[Any, Any]] = {Item.owner_id: show_owner}
    column_formatters_detail = column_formatters
    column_labels: ClassVar[dict[Any, str]] = {
        "id": "ID",
        "name": "Name",
        "description": "Description",
        "price": "Price",
        "stock": "Stock",
        "owner_id": "Owner",
        "created_at": "Created",
        "updated_at": "Updated",
        "deleted_at": "Deleted",
        "version": "Version",
    }
    form_columns: ClassVar[list[Any]] = [Item.name, Item.description, Item.price, Item.stock]
    form_overrides: ClassVar[dict[Any, Any]] = {"description": TextAreaField, "price": DecimalField}
    form_args: ClassVar[dict[str, Any]] = {"price": {"places": 2}}
    form_widget_args: ClassVar[dict[str, Any]] = {"price": {"min": 0, "step": "0.01"}, "stock": {"min": 0}}

    async def create(self, session: AsyncSession, form: ItemIn, caller: Principal) -> Any:
        return await service.create_item(session, owner_id=caller.id, item=form)

    async def create_all(self, session: AsyncSession, forms: Sequence[ItemIn], caller: Principal) -> Sequence[int]:
        return await service.create_items(session, owner_id=caller.id, many=forms)

    async def change(self, session: AsyncSession, record: Item, form: ItemIn, caller: Principal) -> Item:
        return await service.update_item(session, record, **form.model_dump())

    async def remove(self, session: AsyncSession, record: Item, caller: Principal) -> None:
        await service.delete_item(session, record)

    @record_action("Restore", question="It is for sale again.", done="restored")
    async def restore(self, session: AsyncSession, record: Item, caller: Principal) -> None:
        await service.restore_item(session, record)

    @record_action(
        "Delete for good", question="This cannot be undone.", done="deleted for good", dangerous=True, rank=Rank.ADMIN
    )
    async def purge(self, session: AsyncSession, record: Item, caller: Principal) -> None:
        await service.purge_item(session, record)
