"""Percentiles from bins."""

from collections import Counter

from ddsketch import DDSketch
from hypothesis import given
from hypothesis import strategies as st

from backend.features.analytics.sketch import ACCURACY, LONGEST, SHORTEST, VALUES, bin_of, quantiles

LATENCIES = st.lists(st.floats(SHORTEST, LONGEST), min_size=1, max_size=300)
SHARES = 0.5, 0.95, 0.99


@given(LATENCIES)
def test_percentiles_are_within_one_bin_of_the_true_ones(latencies: list[float]) -> None:
    found = quantiles(Counter(map(bin_of, latencies)), *SHARES)
    ordered = sorted(latencies)
    for share, value in zip(SHARES, found, strict=True):
        true = ordered[int(share * (len(ordered) - 1))]
        assert value is not None
        assert abs(bin_of(value) - bin_of(true)) <= 1
        assert abs(value - true) <= true * ACCURACY * 1.0001


@given(LATENCIES)
def test_percentiles_are_what_the_library_finds(latencies: list[float]) -> None:
    bins, sketch = Counter(map(bin_of, latencies)), DDSketch(ACCURACY)
    for bin_, count in bins.items():
        sketch.add(VALUES[bin_], count)
    assert quantiles(bins, *SHARES) == [sketch.get_quantile_value(share) for share in SHARES]


@given(LATENCIES, LATENCIES)
def test_sketches_add_up(some: list[float], others: list[float]) -> None:
    added = Counter(map(bin_of, some)) + Counter(map(bin_of, others))
    assert quantiles(added, *SHARES) == quantiles(Counter(map(bin_of, some + others)), *SHARES)


def test_every_bin_keeps_its_value() -> None:
    assert all(bin_of(value) == one for one, value in list(VALUES.items())[1:])
    assert len(VALUES) <= 163


def test_nothing_has_no_percentiles() -> None:
    assert quantiles({}, *SHARES) == [None, None, None]
