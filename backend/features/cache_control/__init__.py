"""The cache from outside: how it does, and a way to empty it."""

from backend.core.feature import Feature
from backend.features.cache_control.permissions import PERMISSIONS
from backend.features.cache_control.routes import router

feature = Feature(
    name="cache_control",
    summary="How the cache does, and a way to empty it",
    v1=router,
    permissions=PERMISSIONS,
)
