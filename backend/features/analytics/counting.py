"""Counts every request that has ended, in memory: a few microseconds each, and bounded whatever is asked for."""

import os
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from fastapi import FastAPI

from backend.core.figures import Figure
from backend.core.observing import Ended, Observer
from backend.features.analytics.models import FLUSHED, KINDS, SUMS, UNTIMED
from backend.features.analytics.settings import AnalyticsSettings
from backend.features.analytics.sketch import bin_of

OTHER = "other"  # the route of what is too much to be told apart
MILLION = 1_000_000

# minute since 1970, method, route, status, client, probe, bin
Kind = tuple[int, str, str, int, str, bool, int]


@dataclass(kw_only=True)
class Batch:
    """What is stored at once. `name`: by which a process finds out whether it was. `tried`: whether that may be."""

    name: str
    counts: dict[Kind, list[int]]
    tried: bool = False

    def moments(self) -> tuple[datetime, datetime]:
        """The first and the last minute in it."""
        minutes = {kind[0] for kind in self.counts}
        return _moment(min(minutes)), _moment(max(minutes))

    def rows(self) -> Iterator[dict[str, Any]]:
        for (minute, *kind), sums in self.counts.items():
            yield {
                "level": FLUSHED,
                "start": _moment(minute),
                "source": self.name,
                **dict(zip(KINDS, kind, strict=True)),
                **dict(zip(SUMS, sums, strict=True)),
            }


def _moment(minute: int) -> datetime:
    return datetime.fromtimestamp(minute * 60, UTC)


class Counts:
    """One process's, since it last stored them."""

    def __init__(self, rules: AnalyticsSettings) -> None:
        self.rules = rules
        self.waiting: dict[Kind, list[int]] = {}
        self.unsure: Batch | None = None  # was being stored when the database failed
        self.failures = 0
        self.coarse = 0
        self._process = f"{socket.gethostname()[-24:]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._taken = 0
        self._minute = 0
        self._told_apart: set[tuple[object, ...]] = set()  # in that minute
        self._full_since: int | None = None

    def observe(self, ended: Ended) -> None:
        statements = ended.statements
        untimed = ended.is_websocket  # it lasts as long as somebody stays, which says nothing about how fast we are
        kind = (
            int(time.time()) // 60,
            ended.method,
            ended.route,
            ended.status,
            ended.client,
            ended.is_probe,
            UNTIMED if untimed else bin_of(ended.seconds),
        )
        sums = self.waiting.get(kind)
        if sums is None:
            sums = self._begin(kind)
        sums[0] += 1
        if not untimed:
            sums[1] += int(ended.seconds * MILLION)
        sums[2] += statements.count
        sums[3] += int(statements.seconds * MILLION)

    def _begin(self, kind: Kind) -> list[int]:
        """Where a request is counted that is the first of its kind. Nothing is left uncounted, only told apart less."""
        minute, method, route, status, client, probe, bin_ = kind
        if minute != self._minute:
            self._minute, self._told_apart = minute, set()
        route, client = route[:200], client[:20]
        apart = (method, route, status, client, probe)
        if len(self.waiting) >= self.rules.keys_waiting:  # the database has been away for long: time stands still, too
            self._full_since = self._full_since or minute
            minute, route = self._full_since, OTHER
            self.coarse += 1
        elif apart not in self._told_apart:
            if len(self._told_apart) < self.rules.keys_per_minute:
                self._told_apart.add(apart)
            else:
                route = OTHER
                self.coarse += 1
        return self.waiting.setdefault((minute, method, route, status, client, probe, bin_), [0, 0, 0, 0])

    def take(self) -> Batch:
        """All that waits, to be stored; counting begins anew."""
        self._taken += 1
        counts, self.waiting, self._full_since = self.waiting, {}, None
        return Batch(name=f"{self._process}.{self._taken}", counts=counts)


def counts_of(app: FastAPI) -> Counts:
    """This app's. Made with its observer."""
    counts: Counts = app.state.analytics
    return counts


def observer(app: FastAPI) -> Observer:
    app.state.analytics = Counts(AnalyticsSettings.current())
    return counts_of(app).observe


FIGURES = (
    Figure(
        name="analytics_keys_waiting",
        help="Rows of usage figures that wait in memory to be stored.",
        read=lambda app: len(counts_of(app).waiting) + len(unsure.counts if (unsure := counts_of(app).unsure) else ()),
    ),
    Figure(
        name="analytics_flush_failures",
        help="Times that usage figures could not be stored; they are kept and stored later.",
        kind="counter",
        read=lambda app: counts_of(app).failures,
    ),
    Figure(
        name="analytics_coarse_requests",
        help="Requests counted under the route `other`, as there were too many kinds.",
        kind="counter",
        read=lambda app: counts_of(app).coarse,
    ),
)
