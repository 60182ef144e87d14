"""Circuits open after failures, cost nothing while open, and close by themselves."""

import asyncio

import pytest

from backend.core.breakers import Breakers, CircuitOpen


class Broken(Exception):
    pass


async def fail(breakers: Breakers, name: str, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(Broken):
            async with await breakers.get(name):
                raise Broken


async def test_a_circuit_opens_after_failures_in_a_row_and_then_nothing_is_called() -> None:
    breakers = Breakers()
    breaker = await breakers.get("mail", threshold=2, seconds=60)
    await fail(breakers, "mail")
    async with breaker:
        pass  # a success in between
    await fail(breakers, "mail", times=2)
    assert breakers.states() == {"mail": "opened"}
    called = False
    with pytest.raises(CircuitOpen):
        async with breaker:
            called = True
    assert not called


async def test_one_call_decides_after_the_pause_and_others_do_not_wait_for_it() -> None:
    breakers = Breakers()
    breaker = await breakers.get("mail", threshold=1, seconds=0.05)
    await fail(breakers, "mail")
    await asyncio.sleep(0.1)
    async with breaker:
        assert breaker.state == "half-opened"
        with pytest.raises(CircuitOpen):
            async with breaker:
                pass
    assert breaker.state == "closed"


async def test_harmless_exceptions_and_cancellation_do_not_count() -> None:
    breakers = Breakers()
    breaker = await breakers.get("mail", threshold=1, harmless=(LookupError,))
    for kind in (KeyError, asyncio.CancelledError):
        with pytest.raises(kind):
            async with breaker:
                raise kind
    assert breaker.state == "closed"


async def test_a_cancelled_call_is_neither_a_failure_nor_a_success() -> None:
    breakers = Breakers()
    breaker = await breakers.get("mail", threshold=2, seconds=0.05)
    await fail(breakers, "mail")
    with pytest.raises(asyncio.CancelledError):
        async with breaker:
            raise asyncio.CancelledError
    await fail(breakers, "mail")
    assert breaker.state == "opened"
    await asyncio.sleep(0.1)
    with pytest.raises(asyncio.CancelledError):
        async with breaker:
            raise asyncio.CancelledError
    assert breaker.state == "half-opened"
    async with breaker:
        pass
    assert breaker.state == "closed"


async def test_with_a_trial_no_request_pays_for_finding_out_whether_all_is_well() -> None:
    well = False
    tried = asyncio.Event()

    async def trial() -> None:
        tried.set()
        if not well:
            raise Broken

    breakers = Breakers()
    breaker = await breakers.get("redis", threshold=1, seconds=0.05, trial=trial)
    await fail(breakers, "redis")
    async with asyncio.timeout(5):
        await tried.wait()
        with pytest.raises(CircuitOpen):
            async with breaker:
                pass
        well = True
        while breaker.state != "closed":
            await asyncio.sleep(0.01)
    async with breaker:
        pass
    await breakers.close()
