"""The items table."""

from decimal import Decimal
from typing import ClassVar

from sqlalchemy import Index, text
from sqlmodel import Field

from backend.core.db import Money
from backend.core.models import TABLE_OPTIONS, Record, Recoverable

MARKED = text("deleted_at IS NOT NULL")


class Item(Recoverable, Record, table=True):
    """Something for sale. Its owner may be gone; staff then look after it."""

    __tablename__: ClassVar[str] = "items"
    __table_args__ = (Index(None, "deleted_at", postgresql_where=MARKED, sqlite_where=MARKED), TABLE_OPTIONS)

    name: str = Field(max_length=200, index=True)
    description: str = Field(max_length=5000, default="")
    price: Decimal = Field(sa_type=Money, nullable=False)
    stock: int = Field(default=0)
    owner_id: int | None = Field(default=None, foreign_key="users.id", ondelete="SET NULL", index=True)

    def __str__(self) -> str:
        return self.name
