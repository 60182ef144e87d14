"""A caller who asks for many things at once is looked up once."""

import asyncio

import pytest

from backend.core.auth import Principal, Rank
from backend.core.errors import Unauthorized
from backend.core.principals import Principals

ADA = Principal(id=1, name="ada@example.com", rank=Rank.USER, permissions=frozenset(), via="token", credential=1)


class LookUp:
    """One that waits until it is let go on, and counts."""

    def __init__(self, *, fails: int = 0, lifetime: float | None = None) -> None:
        self.fails, self.lifetime, self.count, self.go_on = fails, lifetime, 0, asyncio.Event()

    async def __call__(self) -> tuple[Principal, float | None]:
        self.count += 1
        mine = self.count
        await self.go_on.wait()
        if mine <= self.fails:
            raise Unauthorized
        return ADA, self.lifetime


async def asking(principals: Principals, look_up: LookUp, times: int) -> list[asyncio.Task[Principal]]:
    tasks = [asyncio.create_task(principals.find("token", look_up)) for _ in range(times)]
    await asyncio.sleep(0)
    return tasks


async def test_one_look_up_does_for_all_who_ask_meanwhile() -> None:
    principals, look_up = Principals(10), LookUp()
    tasks = await asking(principals, look_up, 5)
    look_up.go_on.set()
    assert await asyncio.gather(*tasks) == [ADA] * 5
    assert await principals.find("token", look_up) == ADA
    assert look_up.count == 1


async def test_who_comes_after_a_change_does_not_get_what_was_read_before_it() -> None:
    principals, before, after = Principals(10), LookUp(), LookUp()
    [early] = await asking(principals, before, 1)
    principals.forget(1)
    [late] = await asking(principals, after, 1)
    before.go_on.set()
    await early
    assert principals.get("token") is None
    after.go_on.set()
    await late
    assert (before.count, after.count, principals.get("token")) == (1, 1, ADA)


async def test_when_it_fails_each_tries_for_itself() -> None:
    principals, look_up = Principals(10), LookUp(fails=1)
    tasks = await asking(principals, look_up, 3)
    look_up.go_on.set()
    first, *others = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, Unauthorized)
    assert others == [ADA] * 2


async def test_nor_do_they_wait_for_one_who_has_given_up() -> None:
    principals, look_up = Principals(10), LookUp()
    first, second = await asking(principals, look_up, 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    look_up.go_on.set()
    assert await second == ADA


async def test_where_nobody_is_remembered_nobody_waits_for_another() -> None:
    principals, look_up = Principals(0), LookUp()
    tasks = await asking(principals, look_up, 3)
    assert look_up.count == 3
    look_up.go_on.set()
    assert await asyncio.gather(*tasks) == [ADA] * 3


async def test_a_credential_that_is_about_to_expire_is_not_kept_longer() -> None:
    principals, look_up = Principals(10), LookUp(lifetime=0)
    look_up.go_on.set()
    assert await principals.find("token", look_up) == ADA
    assert principals.get("token") is None
