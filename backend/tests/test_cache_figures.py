"""What the cache says about itself."""

from collections.abc import Callable

from fastapi import FastAPI

from backend.core.cache import Cache
from backend.core.cache.payload import Payload


def test_what_was_answered_and_what_is_held_is_told_by_namespace(make_app: Callable[..., FastAPI]) -> None:
    app = make_app()
    cache: Cache = app.state.cache
    cache.keep("key", Payload(b"x"), seconds=60, tags=(), namespace="test.entries")
    for _ in range(2):
        cache.local.get("key")
    cache.local.counts_of("test.entries").misses += 1
    said = {figure.name: dict(reading) for figure, reading in app.state.figures.read()}
    of_results = {result: said["cache_requests"]["test.entries", result] for result in ("hit", "shared_hit", "miss")}
    assert of_results == {"hit": 2, "shared_hit": 0, "miss": 1}
    assert said["cache_evictions"]["test.entries",] == 0
    assert said["cache_entries"]["test.entries",] == 1
    assert said["cache_bytes"]["test.entries",] > 0
