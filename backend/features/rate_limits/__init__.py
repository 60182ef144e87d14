"""Counts what routes limit, by address, person or key; says in headers how much is left; limits the API as a whole.

What is limited is declared where the routes are (`backend.core.limits`). Without this feature nothing is.
"""

from backend.core.feature import Feature
from backend.features.rate_limits.middleware import middleware
from backend.features.rate_limits.settings import RateLimitSettings

feature = Feature(
    name="rate_limits",
    summary="How often callers may ask, and headers that tell them",
    settings=RateLimitSettings,
    middleware=middleware,
)
