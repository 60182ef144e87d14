"""What happens to items, for whoever wants to know."""

from dataclasses import dataclass
from decimal import Decimal
from typing import ClassVar

from backend.core.events import SecurityEvent


@dataclass(frozen=True, kw_only=True)
class ItemPurchased(SecurityEvent):
    """Somebody bought some of an item. An UPDATE of its own took them from the stock: no flush tells the audit log."""

    action: ClassVar[str] = "item.purchased"
    item_id: int
    quantity: int
    price: Decimal
    left: int
