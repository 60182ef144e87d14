"""Metrics for Prometheus: requests, latencies, what is in progress, what the processes use; closed to strangers."""

from backend.core.feature import Feature
from backend.features.metrics.measure import lifespan, observer
from backend.features.metrics.routes import router
from backend.features.metrics.settings import MetricsSettings

feature = Feature(
    name="metrics",
    summary="/metrics for Prometheus: requests, latencies, processes",
    settings=MetricsSettings,
    root=router,
    observer=observer,
    lifespan=lifespan,
)
