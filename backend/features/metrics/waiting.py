"""What was counted and not added to the library's series yet, in plain numbers: a request pays next to nothing.

Adding to a series takes a lock and, with several processes, writes to a file that they share.
"""

from bisect import bisect_left
from collections import defaultdict

from prometheus_client import Counter, Histogram


class Counts:
    """What waits for a counter, by its labels."""

    def __init__(self, counter: Counter) -> None:
        self.counter = counter
        self.waiting: defaultdict[tuple[str | int, ...], int] = defaultdict(int)

    def publish(self) -> None:
        for labels, count in self.waiting.items():
            self.counter.labels(*labels).inc(count)
        self.waiting.clear()


class Times:
    """What waits for a histogram with these bounds, by its labels: how many in each bucket, and their sum."""

    def __init__(self, histogram: Histogram, bounds: tuple[float, ...]) -> None:
        self.histogram = histogram
        self.bounds = bounds
        self.counts: defaultdict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * (len(bounds) + 1))
        self.sums: defaultdict[tuple[str, ...], float] = defaultdict(float)

    def observe(self, labels: tuple[str, ...], seconds: float) -> None:
        self.counts[labels][bisect_left(self.bounds, seconds)] += 1
        self.sums[labels] += seconds

    def publish(self) -> None:
        for labels, counts in self.counts.items():
            _observe_many(self.histogram.labels(*labels), counts, self.sums[labels])
        self.counts.clear()
        self.sums.clear()


def _observe_many(series: Histogram, counts: list[int], total: float) -> None:
    """What `observe` does, for many at once. The library has no public way to: only here are its private parts used."""
    series._sum.inc(total)  # noqa: SLF001
    for bucket, count in zip(series._buckets, counts, strict=True):  # noqa: SLF001
        if count:
            bucket.inc(count)
