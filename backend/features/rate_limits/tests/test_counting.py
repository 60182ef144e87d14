"""The counting itself: both ways agree, and neither grows without bound."""

import os
import secrets
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyrate_limiter import Rate
from redis.asyncio import Redis

from backend.core.breakers import Breakers
from backend.core.config import RedisSettings
from backend.core.redis import connect
from backend.features.rate_limits.counting import InProcess, InRedis

DAY = 86_400_000  # milliseconds: next to nothing comes back while a test runs
BUSY = 30  # seconds by which a machine may hold up one of them; what is counted comes back in 1440 or more


@pytest.fixture
async def redis() -> AsyncIterator[Redis]:
    client = connect(RedisSettings(url=os.environ["TEST_REDIS_URL"], timeout=10))
    assert client is not None
    yield client
    await client.aclose()


@given(most=st.integers(1, 40), asked=st.integers(1, 60))
@settings(max_examples=50, deadline=None)
def test_a_burst_gets_exactly_what_the_limit_says(most: int, asked: int) -> None:
    here, rate = InProcess(), Rate(most, DAY)
    seen = [here.take("key", rate) for _ in range(asked)]
    assert [one.remaining for one in seen] == [max(0, most - number) for number in range(1, asked + 1)]
    assert [one.outcome for one in seen] == ["allowed" if number < most else "limited" for number in range(asked)]
    assert all((one.retry_after > 0) == (one.outcome == "limited") for one in seen)


@pytest.mark.parametrize("most", [1, 3, 7, 60])
async def test_redis_and_this_process_say_the_same(redis: Redis, most: int) -> None:
    here, there, rate = InProcess(), InRedis(redis, Breakers()), Rate(most, DAY)
    key = f"limit:test:{secrets.token_hex(8)}"
    for _ in range(most + 2):
        mine, theirs = here.take(key, rate), await there.take(key, rate)
        assert (mine.outcome, mine.most, mine.remaining) == (theirs.outcome, theirs.most, theirs.remaining)
        assert abs(mine.reset - theirs.reset) <= BUSY
        assert abs(mine.retry_after - theirs.retry_after) <= BUSY
    # A key is gone when there is nothing left to remember.
    assert 0 < await redis.pttl(key) <= DAY
    await redis.delete(key)


def test_the_callers_unseen_for_longest_make_room() -> None:
    here, rate = InProcess(size=3), Rate(1, DAY)
    for key in "abc":
        assert here.take(key, rate).outcome == "allowed"
    assert here.take("a", rate).outcome == "limited"  # seen again: `b` is now the oldest
    assert here.take("d", rate).outcome == "allowed"
    assert here.take("a", rate).outcome == "limited"
    assert here.take("b", rate).outcome == "allowed"
