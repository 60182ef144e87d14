"""OpenTelemetry traces: where the time of one request went, across services. Nothing of it is there until
`TRACING__ENDPOINT` says where they go.
"""

from backend.core.feature import Feature
from backend.features.tracing.middleware import middleware
from backend.features.tracing.settings import TracingSettings
from backend.features.tracing.tracing import lifespan, observer

feature = Feature(
    name="tracing",
    summary="OpenTelemetry traces of requests, SQL, Redis and calls to others",
    settings=TracingSettings,
    middleware=middleware,
    observer=observer,
    lifespan=lifespan,
)
