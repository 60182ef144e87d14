"""What goes in and out of the items API."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from backend.core.db import MAX_ID
from backend.core.schemas import Input, LongText, Name, Output, absent

Price = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2, examples=["19.99"])]
Stock = Annotated[int, Field(ge=0, le=MAX_ID, description="Pieces in stock")]


class ItemIn(Input):
    """An item as its owner states it, to create or replace one."""

    name: Name
    description: LongText = ""
    price: Price
    stock: Stock = 0


class ItemPatch(Input):
    """The fields to change; what is left out stays."""

    name: Name = absent()
    description: LongText = absent()
    price: Price = absent()
    stock: Stock = absent()


class ItemOut(Output):
    """An item of the store. `version` is also its `ETag`."""

    id: int
    name: str
    description: str
    price: Decimal
    stock: int
    owner_id: int | None
    created_at: datetime
    updated_at: datetime
    version: int
