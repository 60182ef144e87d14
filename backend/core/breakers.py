"""Circuit breakers (purgatory): what keeps failing is left alone for a while, so that not every request pays for it.

A circuit is `closed` while all is well, `opened` after so many failures in a row: calls then fail at once. After some
seconds it is `half-opened`: one call is let through, and decides. `app.state.breakers.states()` is for who watches.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import ClassVar, Self

import structlog
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.model import CLOSED, HALF_OPENED, OPENED, ExcludeType, OpenedState
from purgatory.service._async.circuitbreaker import AsyncCircuitBreaker

from backend.core.errors import Unavailable
from backend.core.figures import Reading

log = structlog.get_logger(__name__)

STATES = (CLOSED, HALF_OPENED, OPENED)

Trial = Callable[[], Awaitable[object]]


class CircuitOpen(Unavailable):
    """What is called kept failing, so it was not even tried."""

    code: ClassVar[str] = "circuit_open"
    message: ClassVar[str] = "A service that we need keeps failing, please retry later"


class Breaker:
    """One circuit: `async with breaker:` around each call; CircuitOpen while it is open.

    `trial`: a cheap call that tells whether all is well again; it is then tried in the background, and no request pays.
    """

    def __init__(self, name: str, purgatory: AsyncCircuitBreaker, trial: Trial | None) -> None:
        self.name = name
        self._purgatory = purgatory
        self._trial = trial
        self._trying = False
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> str:
        """`closed`, `opened` or `half-opened`."""
        return self._purgatory.context.state

    async def __aenter__(self) -> Self:
        if self.state != CLOSED and (self._trial or self._trying):
            raise CircuitOpen
        await self._enter()
        return self

    async def _enter(self) -> None:
        try:
            await self._purgatory.__aenter__()
        except OpenedState:
            raise CircuitOpen from None
        self._trying = self.state == HALF_OPENED

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._trying = False
        if kind is not None and issubclass(kind, asyncio.CancelledError):
            return  # it tells nothing: purgatory would take it for a success
        before = self.state
        await self._purgatory.__aexit__(kind, exc, traceback)
        if self.state == before:
            return
        log.warning("circuit", name=self.name, state=self.state, error=kind.__name__ if kind else None)
        if self._trial and self.state != CLOSED and self._task is None:
            self._task = asyncio.create_task(self._try_again(self._trial))

    async def _try_again(self, trial: Trial) -> None:
        while self.state != CLOSED:
            await asyncio.sleep(self._purgatory.context.ttl + 0.01)  # it compares clocks
            with suppress(Exception):
                await self._enter()
                async with AsyncExitStack() as stack:
                    stack.push_async_exit(self.__aexit__)
                    await trial()
        self._task = None

    def close(self) -> None:
        if self._task:
            self._task.cancel()


class Breakers:
    """All circuits of one app, by name."""

    def __init__(self) -> None:
        self._factory = AsyncCircuitBreakerFactory()
        self._breakers: dict[str, Breaker] = {}

    async def get(
        self,
        name: str,
        *,
        threshold: int = 5,
        seconds: float = 10,
        harmless: tuple[type[BaseException], ...] = (),
        trial: Trial | None = None,
    ) -> Breaker:
        """The circuit of this name, made at first use: opens after `threshold` failures in a row, for `seconds`.

        Exceptions of the `harmless` kinds are no failures; nor is being cancelled.
        """
        if name not in self._breakers:
            exclude: ExcludeType = list(harmless)
            made = await self._factory.get_breaker(name, threshold, seconds, exclude)
            self._breakers.setdefault(name, Breaker(name, made, trial))
        return self._breakers[name]

    def states(self) -> dict[str, str]:
        """`closed`, `opened` or `half-opened`, by name."""
        return {name: breaker.state for name, breaker in self._breakers.items()}

    def reading(self) -> Reading:
        """1 for the state that each circuit is in, 0 for those that it is not in."""
        return {(name, state): float(state == now) for name, now in self.states().items() for state in STATES}

    async def close(self) -> None:
        for breaker in self._breakers.values():
            breaker.close()
