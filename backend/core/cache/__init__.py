"""Answers and results that are kept for a while: in this process, and in Redis for all processes.

`@cached` for routes, `@cached_result` for service functions, `invalidate(session, "items")` in what writes. Redis is
optional, and what goes wrong with it is never an error of ours: see docs/how-to/cache.md.
"""

from backend.core.cache.local import Counts
from backend.core.cache.results import cached_result
from backend.core.cache.routes import cached
from backend.core.cache.store import Cache, invalidate
from backend.core.cache.warming import warms

__all__ = ["Cache", "Counts", "cached", "cached_result", "invalidate", "warms"]
