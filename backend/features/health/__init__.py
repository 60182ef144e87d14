"""Health endpoints: for load balancers, orchestrators and people."""

from backend.core.feature import Feature
from backend.features.health.routes import PERMISSIONS, router

feature = Feature(
    name="health",
    summary="/health, /health/detailed, /ready, /live",
    root=router,
    permissions=PERMISSIONS,
)
