"""Responses above a kilobyte are compressed for clients that accept it."""

from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

from backend.core.feature import Feature

# Level 4 is within a few percent of level 9's size at a fraction of its CPU time.
feature = Feature(
    name="gzip",
    summary="Compressed responses",
    middleware=lambda settings: Middleware(GZipMiddleware, minimum_size=1024, compresslevel=4),
)
