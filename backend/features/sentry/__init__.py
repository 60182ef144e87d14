"""Bugs to Sentry, or to whatever speaks its protocol. Nothing of it is there until `SENTRY__DSN` says where they go.

Only what nobody expected: each unhandled exception, with the request's id and route. No bodies, headers, cookies,
addresses or people; and no exception's own text, which may hold any of them, and is in the log under the same id.
"""

from backend.core.feature import Feature
from backend.features.sentry.reporting import lifespan, observer
from backend.features.sentry.settings import SentrySettings

feature = Feature(
    name="sentry",
    summary="Unhandled errors to Sentry, without personal data",
    settings=SentrySettings,
    observer=observer,
    lifespan=lifespan,
)
