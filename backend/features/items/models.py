"""The items table."""

from decimal import Decimal
from typing import ClassVar

from sqlmodel import Field

from backend.core.db import Money
from backend.core.models import Record


class Item(Record, table=True):
    """Something for sale. Its owner may be gone; staff then look after it."""

    __tablename__: ClassVar[str] = "items"

    name: str = Field(max_length=200, index=True)
    description: str = Field(max_length=5000, default="")
    price: Decimal = Field(sa_type=Money, nullable=False)
    stock: int = Field(default=0)
    owner_id: int | None = Field(default=None, foreign_key="users.id", ondelete="SET NULL", index=True)

    def __str__(self) -> str:
        return self.name
