"""What a process has seen and not stored yet. Bounded: it may be all that is known of an outage of hours."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from backend.core.health import Report
from backend.features.incidents.models import DAY, HOUR

MOST_RUNS = 1000  # changes of state; what flaps more often within one outage counts, but has no moments of its own
MOST_TALLIES = 20_000  # for ten components, a month


@dataclass(kw_only=True)
class Tally:
    """The looks at one component in one hour or day."""

    looks: int = 0
    looks_up: int = 0
    latency_sum: float = 0
    latency_max: float = 0

    def add(self, *, up: bool, latency: float) -> None:
        self.looks += 1
        if up:
            self.looks_up += 1
            self.latency_sum += latency
            self.latency_max = max(self.latency_max, latency)


@dataclass(kw_only=True)
class Run:
    """Looks in a row that found the same."""

    component: str
    up: bool
    first: datetime
    last: datetime
    looks: int = 1


def starts(moment: datetime) -> Iterator[tuple[str, datetime]]:
    """The hour and the day that a moment lies in."""
    hour = moment.replace(minute=0, second=0, microsecond=0)
    yield HOUR, hour
    yield DAY, hour.replace(hour=0)


@dataclass
class Seen:
    """Looks, as sums and as runs."""

    tallies: dict[tuple[str, str, datetime], Tally] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)
    _latest: dict[str, Run] = field(default_factory=dict)

    def add(self, report: Report, at: datetime) -> None:
        for one in report.components:
            up = one.status == "up"
            for span, start in starts(at):
                key = (one.name, span, start)
                if key in self.tallies or len(self.tallies) < MOST_TALLIES:
                    self.tallies.setdefault(key, Tally()).add(up=up, latency=one.latency_ms)
            self._run(one.name, at, up=up)

    def _run(self, component: str, at: datetime, *, up: bool) -> None:
        latest = self._latest.get(component)
        if latest and latest.up == up:
            latest.last, latest.looks = at, latest.looks + 1
        elif len(self.runs) < MOST_RUNS:
            self._latest[component] = run = Run(component=component, up=up, first=at, last=at)
            self.runs.append(run)
