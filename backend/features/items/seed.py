"""Demo items."""

import random
from collections.abc import Callable
from decimal import Decimal

from sqlmodel import Session, insert

from backend.features.items.models import Item

KINDS = ("Lamp", "Chair", "Kettle", "Notebook", "Backpack", "Clock", "Mug", "Blanket", "Compass", "Radio")
LOOKS = ("Oak", "Copper", "Linen", "Blue", "Folding", "Vintage", "Quiet", "Pocket", "Alpine", "Harbour")
BATCH = 1000


def seed(session: Session, count: int, advance: Callable[[int], object]) -> None:
    """Add `count` items without an owner, in batches. The same count gives the same items."""
    choose = random.Random(count)  # noqa: S311  demo data, not secrets
    for start in range(0, count, BATCH):
        rows = [
            {
                "name": f"{choose.choice(LOOKS)} {choose.choice(KINDS)} {number}",
                "description": "Demo item",
                "price": Decimal(choose.randrange(100, 100_000)) / 100,
                "stock": choose.randrange(0, 500),
            }
            for number in range(start + 1, min(start + BATCH, count) + 1)
        ]
        session.exec(insert(Item), params=rows)
        advance(len(rows))
