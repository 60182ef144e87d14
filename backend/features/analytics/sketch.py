"""Latencies as counts in logarithmic bins, DDSketch's: quantiles are at most 5 % off, and sketches add up."""

from bisect import bisect_right
from collections.abc import Mapping
from itertools import accumulate

from ddsketch.mapping import LogarithmicMapping

ACCURACY = 0.05
SHORTEST, LONGEST = 0.0001, 1000.0  # seconds; beyond, it is the outermost bin: there are 163 at most

_mapping = LogarithmicMapping(ACCURACY)


def bin_of(seconds: float) -> int:
    """The bin that a latency falls into."""
    bin_: int = _mapping.key(min(max(seconds, SHORTEST), LONGEST))
    return bin_


# What a latency in a bin is taken for.
VALUES: dict[int, float] = {one: _mapping.value(one) for one in range(bin_of(0), bin_of(LONGEST) + 1)}


def quantiles(bins: Mapping[int, int], *shares: float) -> list[float | None]:
    """The seconds that these shares of the counted latencies stay within; None when there are none."""
    if not bins:
        return [None] * len(shares)
    ordered = sorted(bins)
    running = list(accumulate(bins[one] for one in ordered))
    return [VALUES[ordered[bisect_right(running, share * (running[-1] - 1))]] for share in shares]
