"""The counting: GCRA, a leaky bucket kept as the one moment at which it is empty again. In this process, or in Redis.

pyrate-limiter has the algorithm. Its `Limiter` is not used, as it holds one lock for all keys while Redis answers; nor
is its Redis script, which goes by the clocks of the processes and does not tell how much is left.
"""

import time
from collections import OrderedDict

from pyrate_limiter import GCRA, Rate
from pyrate_limiter.abstracts.algorithm import State
from redis.asyncio import Redis

from backend.core.breakers import Breakers, CircuitOpen
from backend.core.limits import Rule
from backend.core.rates import Verdict
from backend.core.redis import RedisAway, guarded
from backend.features.rate_limits.settings import RateLimitSettings

SIZE = 50_000  # keys in a process, some 300 bytes each; the one unseen for longest makes room
ALGORITHM = GCRA()
# The same in Lua. What is empty again needs no key.
SCRIPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local emission, burst = tonumber(ARGV[1]), tonumber(ARGV[2])
local empty = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local wait = empty + emission - burst * emission - now
if wait > 0 then return {empty - now, wait} end
empty = empty + emission
redis.call('SET', KEYS[1], string.format('%.0f', empty), 'PX', math.ceil((empty - now) / 1000))
return {empty - now, 0}
"""


class InProcess:
    """Counts for this process alone, about as many keys as `size`."""

    def __init__(self, size: int = SIZE) -> None:
        self.size = size
        self._states: OrderedDict[str, State] = OrderedDict()

    def take(self, key: str, rate: Rate) -> Verdict:
        now = time.monotonic_ns() // 1_000_000
        state, decision = ALGORITHM.step([rate], self._states.get(key, (0,)), now, 1)
        self._states[key] = state
        self._states.move_to_end(key)
        if len(self._states) > self.size:
            self._states.popitem(last=False)
        return Verdict.of(rate, owed=int(state[0]) - now * 1000, wait=(decision.retry_after_ms or 0) * 1000)


class InRedis:
    """Counts for all processes, by the clock of Redis. RedisAway when it cannot be asked."""

    def __init__(self, redis: Redis, breakers: Breakers) -> None:
        self._redis, self._breakers = redis, breakers
        self._script = redis.register_script(SCRIPT)  # loads itself again into a Redis that was restarted

    async def take(self, key: str, rate: Rate) -> Verdict:
        async with guarded(self._redis, self._breakers):
            owed, wait = await self._script(keys=[key], args=ALGORITHM.redis_args([rate]))
        return Verdict.of(rate, owed=owed, wait=wait)


class Limiter:
    """One app's limits: in Redis where there is one, in this process while there is none."""

    def __init__(self, settings: RateLimitSettings, redis: Redis | None, breakers: Breakers, *, prefix: str) -> None:
        self.prefix = f"{prefix}:limit:"
        self._rates = settings.rates
        self._fail_closed = settings.fail_closed
        self._here = InProcess()
        self._shared = InRedis(redis, breakers) if redis is not None else None

    async def take(self, rule: Rule, who: str) -> Verdict | None:
        rate = self._rates.get(rule.name, rule.rate)
        if rate is None:
            return None
        # With the rate: a limit that was raised must not go on with the long debt of the old one.
        key = f"{self.prefix}{rule.name}:{rate.limit}/{rate.interval}:{who}"
        if self._shared and rule.shared:
            try:
                return await self._shared.take(key, rate)
            except RedisAway as away:
                known = isinstance(away.__cause__, CircuitOpen)  # one slow answer alone shuts nobody out
                if known and rule.when_away == "closed" and self._fail_closed:
                    return Verdict(outcome="unavailable")
        return self._here.take(key, rate)
