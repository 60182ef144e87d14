"""/analytics: how the API is used."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from backend.core.auth import Principal, requires
from backend.core.errors import Unprocessable
from backend.core.models import utc_now
from backend.core.read_session import ReadSession
from backend.features.analytics import service
from backend.features.analytics.schemas import RANGES, PointOut, TotalOut, UsageOut, UsageQuestion

router = APIRouter(prefix="/analytics", tags=["analytics"])


def _period(asked: UsageQuestion) -> service.Period:
    now = utc_now()
    if asked.range and (asked.since or asked.until):
        raise Unprocessable("Give either `range`, or `since` and `until`")
    if asked.until and not asked.since:
        raise Unprocessable("`until` needs `since`")
    since = asked.since or now - timedelta(hours=RANGES[asked.range or "24h"])
    return service.period(since, asked.until or now, asked.step)


@router.get("")
async def read_analytics(
    session: ReadSession,
    caller: Annotated[Principal, requires("analytics:read")],
    asked: Annotated[UsageQuestion, Query()],
) -> UsageOut:
    """Requests, errors and latencies over time, in all, and by route, method, status or kind of caller."""
    period = _period(asked)
    filters = service.Filters(
        probes=asked.probes, route=asked.route, method=asked.method, status=asked.status, client=asked.client
    )
    tallies = await service.over_time(session, period, filters)
    groups = (
        await service.totals(
            session,
            since=period.since,
            until=period.until,
            by=asked.group_by,
            order=asked.order,
            limit=asked.limit,
            filters=filters,
        )
        if asked.group_by
        else []
    )
    return UsageOut(
        since=period.since,
        until=period.until,
        step_seconds=period.step,
        total=TotalOut.of(service.total_of(tallies.values(), period.seconds)),
        series=[PointOut.of(one) for one in await service.points(tallies)],
        groups=[TotalOut.of(one) for one in groups],
    )
