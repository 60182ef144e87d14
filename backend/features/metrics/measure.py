"""Counts and times every request. Labels are bounded: route templates, known methods, statuses; never raw paths."""

import asyncio
import atexit
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache, partial

import structlog
from fastapi import FastAPI
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

from backend.core.observing import Ended, Observer
from backend.core.rates import Verdict
from backend.features.metrics.processes import AppInfo, Processes, forget_the_dead
from backend.features.metrics.published import Published
from backend.features.metrics.waiting import Counts, Times

log = structlog.get_logger(__name__)

PUBLISH_SECONDS = 1.0  # what a killed process may lose, with several processes
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


# prometheus-client reads this at its import: with it, the processes keep their figures in files of that folder.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
FOLDER = os.environ.get(VARIABLE)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series per series, that nothing reads


class Metrics:
    """One app's metrics. Its registry is its own, as tests make many apps."""

    def __init__(self, app: FastAPI) -> None:
        self.registry = CollectorRegistry()
        own = None if FOLDER else self.registry  # the files are collected instead: those of all processes
        self.requests = Counts(
            Counter("http_requests", "Requests answered.", ("method", "route", "status"), registry=own)
        )
        self.seconds = Times(
            Histogram(
                "http_request_duration_seconds",
                "Seconds from a request's arrival to the end of its answer; to the beginning of a stream of events.",
                ("method", "route"),
                registry=own,
                buckets=SECONDS,
            ),
            SECONDS,
        )
        self.database_seconds = Times(
            Histogram(
                "http_request_database_seconds",
                "Seconds that a request waited for the answers to its SQL statements; only of requests that sent any.",
                ("method", "route"),
                registry=own,
                buckets=SECONDS,
            ),
            SECONDS,
        )
        self.published = Published(app.state.figures, own)
        self.limits = Counts(
            Counter(
                "rate_limit_checks",
                "Requests that a limit looked at, by what it said: allowed, limited (429) or unavailable (503).",
                ("limit", "outcome"),
                registry=own,
            )
        )
        if FOLDER:
            MultiProcessCollector(self.registry, FOLDER)  # type: ignore[no-untyped-call]
        PlatformCollector(registry=self.registry)
        self.registry.register(Processes(FOLDER))
        self.registry.register(AppInfo(app.version, app.state.settings.environment))

    def observe(self, ended: Ended) -> None:
        verdicts: dict[str, Verdict] = ended.scope["state"].get("rate_limits", {})
        for name, verdict in verdicts.items():
            self.limits.waiting[name, verdict.outcome] += 1
        if ended.is_websocket:
            return
        labels = ended.method, ended.route
        self.requests.waiting[*labels, ended.status] += 1
        self.seconds.observe(labels, ended.seconds)
        if (statements := ended.statements).count:
            self.database_seconds.observe(labels, statements.seconds)

    def publish(self) -> None:
        """Bring the series up to date. On the event loop, as all that counts."""
        for one in (self.requests, self.seconds, self.database_seconds, self.limits, self.published):
            one.publish()

    def exposition(self) -> bytes:
        """Everything, in Prometheus' text format."""
        if FOLDER:
            forget_the_dead(FOLDER)
        return generate_latest(self.registry)


def metrics_of(app: FastAPI) -> Metrics:
    """This app's metrics, made at first use: by then all its routes are known."""
    if not hasattr(app.state, "metrics"):
        app.state.metrics = Metrics(app)
    metrics: Metrics = app.state.metrics
    return metrics


async def _publish_on_and_on(metrics: Metrics) -> None:
    while True:
        try:
            metrics.publish()
        except Exception:  # this task must not end: the others would never hear of this process any more
            log.exception("figures_not_published")
        await asyncio.sleep(PUBLISH_SECONDS)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Which process a scrape reaches is chance: each puts its figures where all find them, the last ones at its end."""
    if not FOLDER:
        yield
        return
    metrics = metrics_of(app)
    task = asyncio.create_task(_publish_on_and_on(metrics))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        metrics.publish()


@cache
def _shared_folder() -> str:
    """A folder of this run's own, so that no figures of an earlier run are in it."""
    folder = tempfile.mkdtemp(prefix="mainstay-metrics-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def observer(app: FastAPI) -> Observer:
    """With several workers, the process that starts them names the folder: they inherit it, and any answers for all."""
    if app.state.settings.server.workers > 1 and multiprocessing.parent_process() is None:
        os.environ[VARIABLE] = _shared_folder()
    metrics = cache(partial(metrics_of, app))
    return lambda ended: metrics().observe(ended)
