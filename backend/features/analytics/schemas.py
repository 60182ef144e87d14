"""What goes in and out of the analytics' API. Times are in milliseconds."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from backend.core.schemas import NO_NUL, Moment
from backend.features.analytics.service import MOST_GROUPS, By, Order, Point, Total

RANGES = {"1h": 1, "24h": 24, "7d": 7 * 24, "90d": 90 * 24}  # hours

Text = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=NO_NUL)]


class UsageQuestion(BaseModel):
    """What to show. Without anything: the last 24 hours."""

    range: Literal["1h", "24h", "7d", "90d"] | None = Field(None, description="Until now; instead of `since`, `until`")
    since: Moment | None = Field(None, description="From then on, rounded down to a whole step")
    until: Moment | None = Field(None, description="Until then, rounded up to a whole step; by default until now")
    step: int | None = Field(
        None, ge=60, le=604_800, multiple_of=60, description="Seconds per point; by default for 200 points at most"
    )
    group_by: list[By] = Field([], max_length=4, description="Several at once are possible")
    order: Order = Field("requests", description="Which groups come first; `time`: those that took the most in all")
    limit: int = Field(100, ge=1, le=MOST_GROUPS, description="Most groups")
    probes: bool = Field(False, description="Also what monitors ask: `/live`, `/ready`, `/health`, `/metrics`")
    route: Text | None = Field(None, description="Only this route, `/api/v1/users/{user_id}`")
    method: Text | None = Field(None, description="Only this method; `WS` are WebSockets")
    status: int | None = Field(None, ge=100, le=999, description="Only this status")
    client: Text | None = Field(None, description="Only callers known by `token`, `api_key`, `console`, `anonymous` …")


class PointOut(BaseModel):
    """One step; latencies are null when nothing was timed in it."""

    start: datetime
    requests: int = Field(examples=[1200])
    errors: int = Field(examples=[3], description="Answers with a status of 500 or more")
    p50_ms: float | None = Field(examples=[4.1])
    p95_ms: float | None = Field(examples=[21.5])
    p99_ms: float | None = Field(examples=[80.2])

    @classmethod
    def of(cls, point: Point) -> "PointOut":
        return cls(
            start=point.start,
            requests=point.requests,
            errors=point.errors,
            p50_ms=_ms(point.p50),
            p95_ms=_ms(point.p95),
            p99_ms=_ms(point.p99),
        )


class TotalOut(BaseModel):
    """All requests of a group together. Percentiles are at most 5 % off."""

    route: str | None = Field(examples=["/api/v1/items"], description="Null when not grouped by it, as with the next")
    method: str | None = Field(examples=["GET"])
    status: int | None = Field(examples=[200])
    client: str | None = Field(examples=["token"])
    requests: int = Field(examples=[86400])
    errors: int = Field(examples=[12])
    per_second: float = Field(examples=[1.0])
    mean_ms: float | None = Field(examples=[6.3], description="Null for WebSockets alone: they have no latency")
    p50_ms: float | None = Field(examples=[4.1])
    p95_ms: float | None = Field(examples=[21.5])
    p99_ms: float | None = Field(examples=[80.2])
    mean_statements: float | None = Field(examples=[2.0], description="SQL statements per request")
    mean_sql_ms: float | None = Field(examples=[1.9], description="Time that a request waited for them")

    @classmethod
    def of(cls, total: Total) -> "TotalOut":
        return cls(
            route=total.route,
            method=total.method,
            status=total.status,
            client=total.client,
            requests=total.requests,
            errors=total.errors,
            per_second=round(total.per_second, 4),
            mean_ms=_ms(total.mean),
            p50_ms=_ms(total.p50),
            p95_ms=_ms(total.p95),
            p99_ms=_ms(total.p99),
            mean_statements=None if total.mean_statements is None else round(total.mean_statements, 2),
            mean_sql_ms=_ms(total.mean_sql),
        )


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


class UsageOut(BaseModel):
    """How the API was used."""

    since: datetime
    until: datetime
    step_seconds: int = Field(examples=[600])
    total: TotalOut
    series: list[PointOut] = Field(description="Every step, also those in which nothing happened")
    groups: list[TotalOut] = Field(description="By `group_by`; empty without it")
