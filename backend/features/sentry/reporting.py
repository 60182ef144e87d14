"""What is reported, and how little of it.

Sentry's SDK is imported when an app begins to report. None of its integrations is used: they patch what they find, and
collect more than we want anybody to have. Its client is one app's own; delivery is a thread with a bounded queue.
"""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

from fastapi import FastAPI

from backend.core import context, errors
from backend.core.observing import Ended, Observer
from backend.core.route_templates import UNMATCHED
from backend.features.sentry.settings import SentrySettings

STOP_SECONDS = 3.0  # for what waits at the stop


class Reporting:
    """The client of one app."""

    def __init__(self, app: FastAPI, settings: SentrySettings) -> None:
        import sentry_sdk  # noqa: PLC0415  at the start of every app that does not report it would cost half a second
        from sentry_sdk.utils import event_from_exception  # noqa: PLC0415

        self._scope_of = sentry_sdk.Scope
        self._event_of = event_from_exception
        self.app = app
        self.ratio = settings.traces_sample_ratio
        self.client = sentry_sdk.Client(
            dsn=settings.dsn.get_secret_value(),
            environment=app.state.settings.environment,
            release=f"mainstay@{app.version}",
            default_integrations=False,
            auto_enabling_integrations=False,
            auto_session_tracking=False,
            send_default_pii=False,
            include_local_variables=False,  # they hold passwords
            max_request_body_size="never",
            max_breadcrumbs=0,
            propagate_traces=False,
            spotlight=False,
            shutdown_timeout=STOP_SECONDS,
            before_send=_without_texts,
        )

    def bug(self, exc: Exception) -> None:
        event, hint = self._event_of(
            exc, client_options=self.client.options, mechanism={"type": "mainstay", "handled": False}
        )
        event.setdefault("tags", {}).update(_tags())
        scope = self._scope_of(client=self.client)
        self.client.capture_event(event, hint=hint, scope=scope)

    def ended(self, ended: Ended) -> None:
        """A request's route and duration, as what Sentry calls a transaction."""
        if ended.is_probe:
            return
        if random.random() >= self.ratio:  # noqa: S311
            return
        now = time.time()
        trace: dict[str, Any] = {
            "trace_id": ended.facts.get("trace_id", uuid4().hex),
            "span_id": uuid4().hex[:16],
            "op": "http.server",
            "status": "internal_error" if ended.status >= 500 else "ok",
        }
        known = ended.route != UNMATCHED
        event: Any = {
            "type": "transaction",
            "transaction": f"{ended.method} {ended.route}" if known else ended.method,
            "transaction_info": {"source": "route"},
            "contexts": {"trace": trace, "response": {"status_code": ended.status}},
            "tags": {name: str(value) for name, value in ended.facts.items()},
            "start_timestamp": now - ended.seconds,
            "timestamp": now,
            "spans": [],
        }
        self.client.capture_event(event, scope=self._scope_of(client=self.client))

    async def stop(self) -> None:
        """Deliver what waits, within the time for it."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def deliver() -> None:
            self.client.close(timeout=STOP_SECONDS)
            with suppress(RuntimeError):  # the loop has not waited
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=deliver, daemon=True).start()
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS + 1):
                await done.wait()


def _tags() -> dict[str, str]:
    """The ids of the request at hand, by which its log lines are found."""
    known = {"request_id": context.request_id.get(), "trace_id": context.trace_id.get()}
    return {name: value for name, value in known.items() if value}


def _without_texts(event: Any, _hint: Any) -> Any:
    """An exception's text may be somebody's address, or a token: its type and its place are enough to find the bug."""
    for one in event.get("exception", {}).get("values", ()):
        one["value"] = ""
    for key in ("request", "user", "extra", "breadcrumbs"):
        event.pop(key, None)
    return event


def observer(app: FastAPI) -> Observer | None:
    settings = SentrySettings.current()
    if not (settings.dsn.get_secret_value() and settings.traces_sample_ratio):
        return None

    def tell(ended: Ended) -> None:
        if reporting := getattr(app.state, "sentry", None):  # while the app runs
            reporting.ended(ended)

    return tell


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Report while the app runs."""
    settings = SentrySettings.current()
    if not settings.dsn.get_secret_value():
        yield
        return
    reporting = app.state.sentry = Reporting(app, settings)
    errors.observers.append(reporting.bug)
    try:
        yield
    finally:
        errors.observers.remove(reporting.bug)
        app.state.sentry = None
        await reporting.stop()
