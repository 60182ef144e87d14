"""Counts and times every request. Labels are bounded: route templates, known methods, statuses; never raw paths."""

import atexit
import multiprocessing
import os
import shutil
import tempfile
import time
from functools import cache

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from starlette.middleware import Middleware
from starlette.routing import Mount, compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.core.config import Settings
from backend.core.housekeeping import regularly
from backend.core.rates import Verdict
from backend.features.metrics.processes import AppInfo, Processes, forget_the_dead
from backend.features.metrics.published import Published

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


# prometheus-client reads this at its import: with it, the processes keep their figures in files of that folder.
VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
FOLDER = os.environ.get(VARIABLE)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a series per series, that nothing reads


class Routes:
    """The template of the route that answered, with the prefixes it was included under (`scope["route"]` lacks them).

    v2 serves v1's very routes again: one route has several templates then, told apart by how the path begins.
    """

    def __init__(self, app: FastAPI) -> None:
        self.templates: dict[int, list[tuple[str, str]]] = {}  # by id(), as routes cannot be hashed
        self.mounts: list[str] = []
        for context in iter_route_contexts(app.routes):
            path, own = context.path, getattr(context.original_route, "path", None)
            if path is None or own is None:
                continue
            if isinstance(context.original_route, Mount):
                self.mounts.append(path)
            else:
                options = self.templates.setdefault(id(context.original_route), [])
                options.append((path.removesuffix(own), compile_path(path)[1]))  # {id:int} reads {id}, as in OpenAPI

    def template(self, scope: Scope, root_path: str) -> str:
        """Of a request that was answered; `root_path` is the scope's before it was: mounted apps lengthen it."""
        if mounted := scope.get("root_path", "").removeprefix(root_path):
            return next((path for path in self.mounts if f"{mounted}/".startswith(f"{path}/")), "unmatched")
        templates = self.templates.get(id(scope.get("route")), ())
        if len(templates) == 1:
            return templates[0][1]
        path = scope["path"].removeprefix(root_path)
        return next((template for prefix, template in templates if path.startswith(f"{prefix}/")), "unmatched")


class Metrics:
    """One app's metrics. Its registry is its own, as tests make many apps."""

    def __init__(self, app: FastAPI) -> None:
        self.routes = Routes(app)
        self.registry = CollectorRegistry()
        own = None if FOLDER else self.registry  # the files are collected instead: those of all processes
        self.in_progress = Gauge(
            "http_requests_in_progress",
            "Requests being answered; a stream of events only until it has begun.",
            registry=own,
            multiprocess_mode="livesum",
        )
        self.requests = Counter("http_requests", "Requests answered.", ("method", "route", "status"), registry=own)
        self.seconds = Histogram(
            "http_request_duration_seconds",
            "Seconds from a request's arrival to the end of its answer; to the beginning of a stream of events.",
            ("method", "route"),
            registry=own,
            buckets=SECONDS,
        )
        self.published = Published(app.state.figures, own)
        self.limits = Counter(
            "rate_limit_checks",
            "Requests that a limit looked at, by what it said: allowed, limited (429) or unavailable (503).",
            ("limit", "outcome"),
            registry=own,
        )
        # labels() builds and locks: looked up once per combination, of which there are few.
        self.series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        if FOLDER:
            MultiProcessCollector(self.registry, FOLDER)  # type: ignore[no-untyped-call]
        PlatformCollector(registry=self.registry)
        self.registry.register(Processes(FOLDER))
        self.registry.register(AppInfo(app.version, app.state.settings.environment))

    def record(self, scope: Scope, root_path: str, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "other"
        key = (method, self.routes.template(scope, root_path), status)
        if key not in self.series:
            self.series[key] = (self.requests.labels(*key), self.seconds.labels(*key[:2]))
        requests, histogram = self.series[key]
        requests.inc()
        histogram.observe(seconds)

    def record_limits(self, scope: Scope) -> None:
        verdicts: dict[str, Verdict] = scope["state"].get("rate_limits", {})
        for name, verdict in verdicts.items():
            self.limits.labels(name, verdict.outcome).inc()

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


class Measure:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.metrics: Metrics | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        metrics = self.metrics = self.metrics or metrics_of(scope["app"])
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            try:
                await self.app(scope, receive, send)
            finally:
                metrics.record_limits(scope)
            return
        started = time.perf_counter()
        root_path = scope.get("root_path", "")
        status = 500  # what the server answers when the app raises before it has sent anything
        recorded = False

        def record() -> None:
            nonlocal recorded
            if not recorded:
                recorded = True
                metrics.in_progress.dec()
                metrics.record_limits(scope)
                metrics.record(scope, root_path, status, time.perf_counter() - started)

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                for name, value in message.get("headers", ()):
                    if name == b"content-type" and value.startswith(b"text/event-stream"):
                        record()  # it may last for hours, which says nothing about how fast we are
            await send(message)

        metrics.in_progress.inc()
        try:
            await self.app(scope, receive, note)
        finally:
            record()


async def _publish(app: FastAPI) -> None:
    if FOLDER:
        metrics_of(app).published.publish()


# Which process a scrape reaches is chance: each puts its figures where the others find them.
lifespan = regularly(_publish, seconds=5, failed="figures_not_published")


@cache
def _shared_folder() -> str:
    """A folder of this run's own, so that no figures of an earlier run are in it."""
    folder = tempfile.mkdtemp(prefix="mainstay-metrics-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def middleware(settings: Settings) -> Middleware:
    """With several workers, the process that starts them names the folder: they inherit it, and any answers for all."""
    if settings.server.workers > 1 and multiprocessing.parent_process() is None:
        os.environ[VARIABLE] = _shared_folder()
    return Middleware(Measure)
