"""How busy this process is, and whether that is too much.

Two things tell, and each catches what the other does not see:

- *Requests in flight* grow when answers wait for something: the database, another service. A hard ceiling.
- *The event loop's lag*, by how much a short sleep takes too long, grows when the CPU is used up: every request then
  waits that long several times. From a threshold on each request is refused with a probability that grows with the
  lag and reaches `MOST` at twice the threshold. A refusal costs a tenth of an answer, so the lag settles between the
  two, whatever comes in: those who are let in get their answers in time, and the process works at what it can do. When
  the load ends, so does the lag, and with it the refusals, within a second or so.

The lag is smoothed: a single pause (a garbage collection, a slow page) refuses nobody.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

from backend.core.figures import Figure
from backend.features.load_shedding.settings import LoadSheddingSettings

PAUSE = 0.1  # seconds between looks at the lag
WEIGHT = 0.2  # of the latest look
MOST = 0.95  # probability: some are let in always, else nobody would notice that all is well again


class Load:
    """Of one process."""

    def __init__(self, settings: LoadSheddingSettings) -> None:
        self.ceiling = settings.in_flight
        self.threshold = settings.lag_seconds
        self.in_flight = 0
        self.lag = 0.0  # seconds, smoothed
        self.shed = 0  # so far

    def is_too_much(self) -> bool:
        """Whether to refuse the request that has just come."""
        if self.in_flight >= self.ceiling:
            return True
        excess = self.lag / self.threshold - 1
        return excess > 0 and random.random() < min(excess, MOST)  # noqa: S311

    async def watch(self) -> None:
        """Keep `lag` up to date, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            expected = loop.time() + PAUSE
            await asyncio.sleep(PAUSE)
            self.lag += WEIGHT * (loop.time() - expected - self.lag)


def load_of(app: FastAPI) -> Load:
    """This app's load, made at first use."""
    if not hasattr(app.state, "load"):
        app.state.load = Load(LoadSheddingSettings.current())
    load: Load = app.state.load
    return load


@asynccontextmanager
async def watched(app: FastAPI) -> AsyncIterator[None]:
    watch = asyncio.create_task(load_of(app).watch())
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


FIGURES = (
    Figure(
        name="event_loop_lag_seconds",
        help="By how much the event loop is late, smoothed; of several processes, the latest.",
        together="max",
        read=lambda app: load_of(app).lag,
    ),
    Figure(
        name="load_in_flight",
        help="Requests whose answer has not begun, but for those that are never refused.",
        read=lambda app: load_of(app).in_flight,
    ),
    Figure(
        name="load_shed",
        help="Requests refused because there were too many.",
        kind="counter",
        read=lambda app: load_of(app).shed,
    ),
)
