"""How often the same answer was given again, for whoever watches."""

from backend.core.tallies import Tally

REPLAYS = Tally("idempotent_replays", "Requests sent again that got the answer of the first.")
