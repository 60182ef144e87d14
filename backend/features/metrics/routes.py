"""`GET /metrics` in Prometheus' text format."""

import secrets

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from backend.core.errors import Forbidden
from backend.features.metrics.measure import metrics_of
from backend.features.metrics.settings import MetricsSettings

router = APIRouter(include_in_schema=False)


def _may_read(request: Request, metrics: MetricsSettings) -> bool:
    token = metrics.token.get_secret_value()
    scheme, _, shown = request.headers.get("authorization", "").partition(" ")
    if token and scheme.lower() == "bearer" and secrets.compare_digest(shown.strip().encode(), token.encode()):
        return True
    # Whoever comes through a proxy shows the token: of the addresses that such a request names, any may be made up.
    direct = "x-forwarded-for" not in request.headers
    return direct and request.client is not None and metrics.allows(request.client.host)


@router.get("/metrics")
async def metrics(request: Request) -> PlainTextResponse:
    """Every metric of all server processes, in Prometheus' text format.

    Public: a scraper has no account here; it shows the token or calls from a network that the settings name, else 403.
    """
    if not _may_read(request, MetricsSettings.current()):
        raise Forbidden("Metrics are for callers with the metrics token, or from a network that METRICS__ALLOWED names")
    metrics = metrics_of(request.app)
    metrics.publish()
    text = await to_thread.run_sync(metrics.exposition)
    return PlainTextResponse(text, media_type=CONTENT_TYPE_PLAIN_0_0_4, headers={"Cache-Control": "no-store"})
