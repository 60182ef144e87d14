"""What the store does, counted for whoever watches. A counter of your own business is a line like these."""

from backend.core.tallies import Tally

CREATED = Tally("items_created", "Items put up for sale.")
PURCHASES = Tally("item_purchases", "Purchases made, of however many pieces.")
