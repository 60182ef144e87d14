"""What goes in and out of the items API."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from backend.core.db import MAX_ID
from backend.core.schemas import WHOLE, Amount, AmountOut, Input, LongText, Name, Output, absent

ItemName = Annotated[Name, Field(examples=["Teapot"])]
Description = Annotated[LongText, Field(examples=["Holds one litre and keeps it warm"])]
Stock = Annotated[int, Field(ge=0, le=MAX_ID, description="Pieces in stock", examples=[12]), WHOLE]


class ItemIn(Input):
    """An item as its owner states it, to create or replace one."""

    name: ItemName
    description: Description = ""
    price: Amount
    stock: Stock = 0


class ItemPatch(Input):
    """The fields to change; what is left out stays."""

    name: ItemName = absent()
    description: Description = absent()
    price: Amount = absent()
    stock: Stock = absent()


class ItemOut(Output):
    """An item of the store. `version` is also its `ETag`."""

    id: int = Field(examples=[7])
    name: str = Field(examples=["Teapot"])
    description: str = Field(examples=["Holds one litre and keeps it warm"])
    price: AmountOut
    stock: int = Field(examples=[12])
    owner_id: int | None = Field(description="Null when the owner's account is gone")
    created_at: datetime
    updated_at: datetime
    version: int


class ItemsIn(Input):
    """Items to create together."""

    items: list[ItemIn] = Field(min_length=1, max_length=1000)


class ItemsMade(Output):
    """The keys of new items, in the order in which they were sent."""

    ids: list[int] = Field(examples=[[7, 8, 9]])


class Price(Output):
    """What an item costs."""

    name: str = Field(examples=["Teapot"])
    price: AmountOut


class Inventory(Output):
    """How many there are of an item."""

    stock: int = Field(examples=[12])
    available: bool


class ItemSummary(Output):
    """What one wants to know before buying."""

    id: int = Field(examples=[7])
    price: Price
    inventory: Inventory


class PurchaseIn(Input):
    """How many to buy."""

    quantity: Annotated[int, Field(ge=1, le=1000, description="Pieces to buy", examples=[2]), WHOLE] = 1


class PurchaseOut(Output):
    """What was bought, and how many are left."""

    item_id: int = Field(examples=[7])
    name: str = Field(examples=["Teapot"])
    quantity: int = Field(examples=[2])
    price: AmountOut
    total: Decimal = Field(examples=["39.98"])
    left: int = Field(examples=[10])
