"""How the cache does, for whoever watches."""

from collections.abc import Callable

from fastapi import FastAPI

from backend.core.cache.local import Counts
from backend.core.figures import Figure, Reading

RESULTS = {"hits": "hit", "shared_hits": "shared_hit", "misses": "miss"}


def _requests(app: FastAPI) -> Reading:
    statistics: dict[str, Counts] = app.state.cache.statistics()
    return {(name, said): getattr(one, field) for name, one in statistics.items() for field, said in RESULTS.items()}


def _each(field: str) -> Callable[[FastAPI], Reading]:
    return lambda app: {(name,): getattr(one, field) for name, one in app.state.cache.statistics().items()}


FIGURES = (
    Figure(
        name="cache_requests",
        help="Look-ups: answered from the process (hit), from Redis (shared_hit), or computed (miss).",
        kind="counter",
        labels=("namespace", "result"),
        read=_requests,
    ),
    Figure(
        name="cache_evictions",
        help="Entries that made room before their time.",
        kind="counter",
        labels=("namespace",),
        read=_each("evictions"),
    ),
    Figure(
        name="cache_entries",
        help="Entries that the processes hold.",
        labels=("namespace",),
        read=_each("entries"),
    ),
    Figure(
        name="cache_bytes",
        help="Memory of the processes that these take, about.",
        labels=("namespace",),
        read=_each("bytes"),
    ),
)
