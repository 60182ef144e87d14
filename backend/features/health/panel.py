"""How the process that answers does, for the status page: what its parts count, and the last answers that failed."""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fastapi import FastAPI

from backend.core.figures import Reading
from backend.core.models import utc_now
from backend.core.observing import Ended, Observer
from backend.core.status import Block, Panel, Stat, Stats, Table, Tone, Window, milliseconds, number, share

FAILURES = 20  # answers that are remembered
LATE = 0.05  # seconds of the event loop's lag that are worth a look


@dataclass(frozen=True)
class Failure:
    """An answer of 500 or above."""

    at: datetime
    method: str
    route: str
    status: int
    request_id: str


def failures_of(app: FastAPI) -> deque[Failure]:
    """This process's, made at first use."""
    if not hasattr(app.state, "failures"):
        app.state.failures = deque(maxlen=FAILURES)
    failures: deque[Failure] = app.state.failures
    return failures


def observer(app: FastAPI) -> Observer:
    failures = failures_of(app)

    def note(ended: Ended) -> None:
        if ended.status >= 500 and not ended.is_probe:
            request_id = str(ended.facts.get("request_id", ""))
            failures.append(Failure(utc_now(), ended.method, ended.route, ended.status, request_id))

    return note


def _hit_rate(requests: Reading) -> float | None:
    found = sum(count for (_, result), count in requests.items() if result != "miss")
    asked = sum(requests.values())
    return found / asked if asked else None


def _stats(figures: Mapping[str, Reading]) -> list[Stat]:
    """Of those figures that there are: each belongs to a part that may be taken out."""

    def one(name: str) -> float | None:
        return figures[name].get((), 0) if name in figures else None

    open_circuits = [
        name for (name, state), is_it in figures.get("circuit_state", {}).items() if state == "opened" and is_it
    ]
    lag, shed, late = one("event_loop_lag_seconds"), one("load_shed"), one("request_timeouts")
    in_use = figures.get("database_connections", {}).get(("in_use",))
    limit, waiting = one("database_connections_limit"), one("database_connections_waiting")
    stats = [Stat(label="Requests in progress", value=number(one("http_requests_in_progress") or 0))]
    if in_use is not None and limit:
        tone: Tone = "bad" if waiting else "fair" if in_use > 0.8 * limit else ""
        note = f"{number(waiting or 0)} waiting"
        stats.append(
            Stat(label="Database connections", value=f"{number(in_use)} of {number(limit)}", note=note, tone=tone)
        )
    if "cache_requests" in figures:
        stats.append(Stat(label="Found in the cache", value=share(_hit_rate(figures["cache_requests"]))))
    if lag is not None:
        stats.append(Stat(label="Event loop is late by", value=milliseconds(lag), tone="fair" if lag > LATE else ""))
    if shed is not None:
        stats.append(Stat(label="Refused as too many", value=number(shed)))
    if late is not None:
        stats.append(Stat(label="Given up as too late", value=number(late)))
    words = ", ".join(open_circuits) or "none"
    stats.append(Stat(label="Open circuits", value=words, tone="bad" if open_circuits else ""))
    return stats


async def _read(app: FastAPI, _window: Window) -> Sequence[Block]:
    figures = {figure.name: reading for figure, reading in app.state.figures.read()}
    rows = [
        (one.at.strftime("%Y-%m-%d %H:%M:%S"), f"{one.method} {one.route}", one.status, one.request_id)
        for one in reversed(failures_of(app))
    ]
    table = Table(
        caption="The last answers that failed",
        columns=("When (UTC)", "Request", "Status", "Request id"),
        rows=rows,
        empty="None since this process started.",
    )
    return Stats(_stats(figures)), table


PANEL = Panel(title="The process that answers", read=_read, permission="health:read")
