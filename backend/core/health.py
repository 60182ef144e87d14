"""Component health: probes run together, each with a time limit, at most once per second however often asked."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import structlog
from fastapi import FastAPI
from pydantic import BaseModel

log = structlog.get_logger(__name__)

Probe = Callable[[FastAPI], Awaitable[None]]  # returns when the component works, raises when it does not

PROBE_TIMEOUT = 2.0  # seconds
FRESH = 1.0  # seconds for which a result is reused: strangers may ask for the status page as fast as they like
REQUIRED = frozenset({"database"})  # without it no request can be served; anything else only degrades


class Component(BaseModel):
    """One part of the system, as it was at the last look."""

    name: str
    status: Literal["up", "down"]
    required: bool
    latency_ms: float
    error: str | None = None


class Report(BaseModel):
    """All parts at one moment: `ok`, `degraded` (something optional is down) or `down` (something required is)."""

    status: Literal["ok", "degraded", "down"]
    components: list[Component]


async def _probe(app: FastAPI, name: str, probe: Probe) -> Component:
    started = time.perf_counter()
    error = None
    task = asyncio.ensure_future(probe(app))
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # seen, though nobody waits for it
    try:
        # Not asyncio.timeout(): it would wait for the probe to finish being cancelled, which a frozen server delays.
        done, _ = await asyncio.wait({task}, timeout=PROBE_TIMEOUT)
        if done:
            task.result()
        else:
            error = f"no answer within {PROBE_TIMEOUT:g} s"
    except Exception as exc:  # noqa: BLE001  a probe fails in whatever way its client does; all mean "down"
        error = type(exc).__name__
        log.warning("probe_failed", component=name, error=error)
    finally:
        task.cancel()
    latency = round((time.perf_counter() - started) * 1000, 2)
    return Component(
        name=name, status="down" if error else "up", required=name in REQUIRED, latency_ms=latency, error=error
    )


def _summary(components: list[Component]) -> Literal["ok", "degraded", "down"]:
    down = [component for component in components if component.status == "down"]
    if not down:
        return "ok"
    return "down" if any(component.required for component in down) else "degraded"


class Health:
    """Runs the probes of one app and remembers the result for a second; concurrent callers share one run."""

    def __init__(self, app: FastAPI, probes: Mapping[str, Probe]) -> None:
        self._app = app
        self._probes = dict(probes)
        self._lock = asyncio.Lock()
        self._report: Report | None = None
        self._taken = float("-inf")  # time.monotonic() of the last run

    async def report(self) -> Report:
        async with self._lock:
            if self._report is None or time.monotonic() - self._taken > FRESH:
                checks = (_probe(self._app, name, probe) for name, probe in self._probes.items())
                components = list(await asyncio.gather(*checks))
                self._report = Report(status=_summary(components), components=components)
                self._taken = time.monotonic()
            return self._report
