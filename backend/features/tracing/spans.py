"""Spans: one for a request, with one below it for each statement, round trip to Redis, call to others and mail; one for
each piece of housekeeping.

Imports OpenTelemetry's SDK: only `lifespan` imports this, when there is something to trace. The tracer provider is one
app's own, and registered nowhere.
"""

import asyncio
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import httpx2
import structlog
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy.engine import make_url
from starlette.types import Scope

from backend.core.headers import header
from backend.core.masking import without_addresses
from backend.core.observing import Ended
from backend.core.route_templates import UNMATCHED
from backend.features.tracing.settings import TracingSettings

log = structlog.get_logger(__name__)

MOST_CHILDREN = 200  # spans below one request; what would be more is only counted
LONGEST_TEXT = 2048  # characters of a statement
QUEUE = 4096  # spans that wait for the collector, per process; then the oldest are lost
BATCH = 512
DELAY = 2000  # milliseconds that a span waits for others
TIMEOUT = 5.0  # seconds for one delivery, repeats included, and for all that are left at the stop
EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"  # its logger


class Rarely(logging.Filter):
    """One line a minute says as much of a collector that is away as one for each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.next = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if (now := time.monotonic()) < self.next:
            return False
        self.next = now + 60
        return True


class Traced:
    """One request's span, and how many are below it."""

    __slots__ = ("children", "mine", "span")

    def __init__(self, mine: "Tracing", span: trace.Span) -> None:
        self.mine = mine
        self.span = span
        self.children = 0


_current: ContextVar[Traced | None] = ContextVar("traced", default=None)


def _moment(seconds: float) -> int:
    """Nanoseconds since 1970 of a moment of `time.perf_counter()`."""
    return time.time_ns() + int((seconds - time.perf_counter()) * 1e9)


class Tracing:
    """The tracer of one app."""

    def __init__(self, app: FastAPI, settings: TracingSettings) -> None:
        kernel = app.state.settings
        self.settings = settings
        self.system = {"mysql": "mysql", "mariadb": "mariadb", "sqlite": "sqlite"}.get(
            make_url(kernel.database.url).get_backend_name(), "postgresql"
        )
        self.propagator = TraceContextTextMapPropagator()
        resource = Resource.create(
            {
                "service.name": settings.service_name,
                "service.version": app.version,
                "deployment.environment.name": kernel.environment,
            }
        )
        self.provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
            resource=resource,
            span_limits=SpanLimits(max_attributes=32, max_events=8, max_attribute_length=LONGEST_TEXT),
            shutdown_on_exit=False,  # the lifespan does that
        )
        exporter = OTLPSpanExporter(endpoint=settings.url, headers=settings.header_pairs, timeout=TIMEOUT)
        self.provider.add_span_processor(
            BatchSpanProcessor(exporter, max_queue_size=QUEUE, max_export_batch_size=BATCH, schedule_delay_millis=DELAY)
        )
        self.tracer = self.provider.get_tracer("mainstay", app.version)
        self.rarely = Rarely()
        logging.getLogger(EXPORTER).addFilter(self.rarely)

    async def stop(self) -> None:
        """Deliver what waits, within the time for it. A collector that hangs is left: the thread is a daemon."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def deliver() -> None:
            self.provider.shutdown()
            with suppress(RuntimeError):  # the loop has not waited
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=deliver, daemon=True).start()
        try:
            async with asyncio.timeout(TIMEOUT):
                await done.wait()
        except TimeoutError:
            log.warning("traces_lost", reason="the collector did not take them in time")
        logging.getLogger(EXPORTER).removeFilter(self.rarely)

    # --- the request

    @contextmanager
    def request(self, scope: Scope) -> Iterator[str]:
        """Within the block, all that is done belongs to the span of this request. Yields the id of its trace."""
        span = self.tracer.start_span(
            "request", context=self._parent(scope), kind=trace.SpanKind.SERVER, attributes=_known(scope)
        )
        traced = Traced(self, span)
        scope["state"]["traced"] = traced
        token = _current.set(traced)
        try:
            yield f"{span.get_span_context().trace_id:032x}"
        except Exception as exc:
            self.bug(exc)
            raise
        finally:
            _current.reset(token)

    def _parent(self, scope: Scope) -> Any:
        """The caller's span, if they are to be trusted: a stranger could have every request traced, or join traces."""
        host = scope["client"][0] if scope.get("client") else ""
        if not self.settings.trusts(host):
            return Context()
        carrier = {name: header(scope, name.encode()) for name in ("traceparent", "tracestate")}
        return self.propagator.extract({k: v for k, v in carrier.items() if v}, context=Context())

    def end(self, ended: Ended, traced: Traced) -> None:
        """The route is known only now, and so is the name."""
        span = traced.span
        if not span.is_recording():
            return
        method = "GET" if ended.is_websocket else ended.method
        known = ended.route != UNMATCHED
        span.update_name(f"{method} {ended.route}" if known else method)
        if known:
            span.set_attribute("http.route", ended.route)
        span.set_attribute("http.request.method", "_OTHER" if method == "other" else method)
        span.set_attribute("http.response.status_code", ended.status)
        if request_id := ended.facts.get("request_id"):
            span.set_attribute("mainstay.request_id", request_id)
        if traced.children > MOST_CHILDREN:
            span.set_attribute("mainstay.spans_left_out", traced.children - MOST_CHILDREN)
        if ended.status >= 500:
            span.set_status(trace.StatusCode.ERROR)
            if "error.type" not in (getattr(span, "attributes", None) or {}):
                span.set_attribute("error.type", str(ended.status))
        span.end()

    # --- what is below it

    def _mine(self) -> Traced | None:
        """The request at hand, if it is this app's and recorded, and has room for one more span."""
        traced = _current.get()
        if traced is None or traced.mine is not self or not traced.span.get_span_context().trace_flags.sampled:
            return None
        traced.children += 1
        return traced if traced.children <= MOST_CHILDREN else None

    def _child(self, traced: Traced, name: str, attributes: dict[str, Any], began: float | None = None) -> trace.Span:
        return self.tracer.start_span(
            name,
            context=trace.set_span_in_context(traced.span),
            kind=trace.SpanKind.CLIENT,
            attributes=attributes,
            start_time=None if began is None else _moment(began),
        )

    def statement(self, text: str, began: float, ended: float, failure: BaseException | None) -> None:
        """An SQL statement: its text, in which values are placeholders."""
        if traced := self._mine():
            operation = text.lstrip("( \n").partition(" ")[0].strip().upper()[:20]
            attributes = {"db.system.name": self.system, "db.operation.name": operation, "db.query.text": text}
            span = self._child(traced, operation, attributes, began)
            self._failed(span, failure)
            span.end(_moment(ended))

    def command(self, name: str, began: float, ended: float, failure: BaseException | None) -> None:
        """A round trip to Redis: the command's name alone, as keys and values may be anybody's."""
        if traced := self._mine():
            attributes = {"db.system.name": "redis", "db.operation.name": name}
            span = self._child(traced, name, attributes, began)
            self._failed(span, failure)
            span.end(_moment(ended))

    @contextmanager
    def call(self, request: httpx2.Request) -> Iterator[Callable[[int], None]]:
        """One try of a call to another service, which hears of the trace. Its path may be secret, and stays out."""
        traced = self._mine()
        if traced is None:
            parent = _current.get()
            if parent and parent.mine is self:  # not recorded, or one too many: the others still hear of the trace
                self.propagator.inject(request.headers, trace.set_span_in_context(parent.span))
            yield lambda _status: None
            return
        attributes: dict[str, Any] = {"http.request.method": request.method, "server.address": request.url.host}
        if request.url.port:
            attributes["server.port"] = request.url.port
        span = self._child(traced, request.method, attributes)
        self.propagator.inject(request.headers, trace.set_span_in_context(span))

        def tell(status: int) -> None:
            span.set_attribute("http.response.status_code", status)
            if status >= 400:
                span.set_attribute("error.type", str(status))
                span.set_status(trace.StatusCode.ERROR)

        try:
            yield tell
        except BaseException as exc:
            self._failed(span, exc)
            raise
        finally:
            span.end()

    @contextmanager
    def job(self, name: str) -> Iterator[None]:
        """What is done apart from requests: below the one that asked for it, as a mail; else a trace of its own."""
        current = _current.get()
        if current is not None and current.mine is self:
            traced = self._mine()
            if traced is None:
                yield
                return
            span, token = self._child(traced, name, {}), None
        else:
            span = self.tracer.start_span(name, context=Context(), kind=trace.SpanKind.INTERNAL)
            token = _current.set(Traced(self, span))
        try:
            yield
        except BaseException as exc:
            self._failed(span, exc)
            raise
        finally:
            if token is not None:
                _current.reset(token)
            span.end()

    def _failed(self, span: trace.Span, failure: BaseException | None) -> None:
        if failure is not None:
            span.set_attribute("error.type", type(failure).__qualname__)
            span.set_status(trace.StatusCode.ERROR)

    def bug(self, exc: Exception) -> None:
        """An exception that nobody expected: its type, and where. Its text may hold anything, and stays in the log."""
        traced = _current.get()
        if traced and traced.mine is self and traced.span.is_recording():
            kind, place = type(exc).__qualname__, "".join(traceback.format_tb(exc.__traceback__))
            traced.span.add_event("exception", {"exception.type": kind, "exception.stacktrace": place[-LONGEST_TEXT:]})
            traced.span.set_attribute("error.type", kind)
            traced.span.set_status(trace.StatusCode.ERROR)


def _known(scope: Scope) -> dict[str, Any]:
    """What is known of a request before it is answered. Not who asks, nor the query: it may hold secrets."""
    return {"url.path": without_addresses(scope["path"]), "url.scheme": scope.get("scheme", "http")}
