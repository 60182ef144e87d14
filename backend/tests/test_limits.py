"""How limits are declared: spelling, who counts as one, what a verdict says. The feature `rate_limits` counts."""

import pytest
from pyrate_limiter import Rate

from backend.core.config import BadSetting
from backend.core.limits import declare, network_of
from backend.core.rates import Verdict, rate_of


@pytest.mark.parametrize(
    ("text", "most", "milliseconds"),
    [
        ("1/second", 1, 1000),
        ("60/minute", 60, 60_000),
        ("5/hour", 5, 3_600_000),
        ("9999999/day", 9_999_999, 86_400_000),
    ],
)
def test_a_rate_is_a_number_and_a_unit(text: str, most: int, milliseconds: int) -> None:
    rate = rate_of(text)
    assert rate is not None
    assert (rate.limit, rate.interval) == (most, milliseconds)


@pytest.mark.parametrize("text", ["off", "0"])
def test_a_limit_can_be_switched_off(text: str) -> None:
    assert rate_of(text) is None


@pytest.mark.parametrize(
    "text", ["", "60", "60/minutes", "0/minute", "-1/minute", "1.5/second", "+1/second", "60 / day"]
)
def test_any_other_spelling_is_refused_in_plain_words(text: str) -> None:
    with pytest.raises(BadSetting, match="is no rate: write it like 60/minute"):
        rate_of(text)


def test_two_limits_of_one_name_are_refused() -> None:
    declare("test.twice", "1/day", by="ip")
    with pytest.raises(BadSetting, match=r"two limits are called test\.twice"):
        declare("test.twice", "1/day", by="ip")


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("not:an:address", "not:an:address"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_an_ipv6_address_counts_as_its_network(address: str, network: str) -> None:
    assert network_of(address) == network


@pytest.mark.parametrize("most", [1, 3, 7, 60, 999])
def test_one_taken_leaves_all_but_one_whatever_the_rate_divides_into(most: int) -> None:
    rate = Rate(most, 60_000)
    owed = -(-60_000_000 // most)
    verdict = Verdict.of(rate, owed=owed, wait=0)
    assert (verdict.outcome, verdict.remaining, verdict.reset) == ("allowed", most - 1, -(-owed // 1_000_000))


def test_a_wait_is_never_said_to_be_shorter_than_it_is() -> None:
    verdict = Verdict.of(Rate(2, 60_000), owed=59_000_001, wait=29_000_001)
    assert (verdict.outcome, verdict.retry_after, verdict.reset, verdict.remaining) == ("limited", 30, 60, 0)
