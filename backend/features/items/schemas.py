"""What goes in and out of the items API."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from backend.core.db import MAX_ID
from backend.core.schemas import WHOLE, Amount, Input, LongText, Name, Output, absent

Stock = Annotated[int, Field(ge=0, le=MAX_ID, description="Pieces in stock"), WHOLE]


class ItemIn(Input):
    """An item as its owner states it, to create or replace one."""

    name: Name
    description: LongText = ""
    price: Amount
    stock: Stock = 0


class ItemPatch(Input):
    """The fields to change; what is left out stays."""

    name: Name = absent()
    description: LongText = absent()
    price: Amount = absent()
    stock: Stock = absent()


class ItemOut(Output):
    """An item of the store. `version` is also its `ETag`."""

    id: int
    name: str
    description: str
    price: Amount
    stock: int
    owner_id: int | None
    created_at: datetime
    updated_at: datetime
    version: int
