"""Idempotency-Key: a client that heard no answer sends its request again, and it is carried out once.

The answer is stored in the very transaction of the work that it answers for: either both are there, or neither. The
header is that of draft-ietf-httpapi-idempotency-key-header; `docs/how-to/retry-safely.md` says how to use it.
"""

from backend.core.feature import Feature
from backend.features.idempotency.description import describe
from backend.features.idempotency.exchange import finish_before
from backend.features.idempotency.figures import REPLAYS
from backend.features.idempotency.housekeeping import lifespan
from backend.features.idempotency.middleware import middleware
from backend.features.idempotency.settings import IdempotencySettings
from backend.features.users.events import AccountDeleted

feature = Feature(
    name="idempotency",
    summary="Requests that may be sent again without being carried out twice",
    needs=("users",),
    settings=IdempotencySettings,
    middleware=middleware,
    lifespan=lifespan,
    openapi=describe,
    on={AccountDeleted: finish_before},
    figures=(REPLAYS.figure,),
)
