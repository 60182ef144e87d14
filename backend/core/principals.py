"""Callers known already: a credential that was verified a moment ago is not looked up again.

What changes an account calls `forget` for it, which works at once in this process, after the commit. Other processes
are told through Redis, the way they are told of cached answers. Where there is none, or it is away, they forget by
time: `SECURITY__PRINCIPAL_CACHE_SECONDS` bounds for how long they may go on, whatever they have heard.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Principal
from backend.core.cache import invalidate
from backend.core.cache.local import EVERYTHING
from backend.core.commits import after_commit

LookUp = Callable[[], Awaitable[tuple[Principal, float | None]]]

SIZE = 10_000  # callers; the one unseen for longest makes room
PERSON, EVERYBODY = "person:", "everybody"  # what processes tell each other: a tag without cached answers


class Principals:
    """Principals by credential, each for `seconds` at most; 0 keeps none."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.generation = 0
        self._known: OrderedDict[str, tuple[float, Principal]] = OrderedDict()
        self._of: dict[int, set[str]] = {}
        self._looked_up: dict[tuple[int, str], asyncio.Event] = {}

    def get(self, credential: str) -> Principal | None:
        known = self._known.get(credential)
        if known is None:
            return None
        expires, principal = known
        if time.monotonic() >= expires:
            self._drop(credential)
            return None
        self._known.move_to_end(credential)
        return principal

    async def find(self, credential: str, look_up: LookUp) -> Principal:
        """A principal known already, or what `look_up` returns with the seconds that are left of the credential.

        Who asks while it is looked up waits for that: a busy caller's requests would otherwise all ask the database at
        the moment in which they are forgotten. If it fails, each of them tries for itself.
        """
        if known := self.get(credential):
            return known
        generation = self.generation  # forgotten since: what is being looked up may be outdated already
        asked = generation, credential
        if self.seconds > 0 and (another := self._looked_up.get(asked)):
            await another.wait()
            if known := self.get(credential):
                return known
        self._looked_up[asked] = done = asyncio.Event()
        try:
            principal, lifetime = await look_up()
            self.put(credential, principal, generation=generation, lifetime=lifetime)
        finally:
            done.set()
            if self._looked_up.get(asked) is done:
                del self._looked_up[asked]
        return principal

    def put(self, credential: str, principal: Principal, *, generation: int, lifetime: float | None = None) -> None:
        """Keep a principal, no longer than `lifetime` seconds.

        `generation` was read before the look-up began: if something was forgotten since, this may be outdated already.
        """
        seconds = self.seconds if lifetime is None else min(self.seconds, lifetime)
        if generation != self.generation or seconds <= 0:
            return
        self._known[credential] = (time.monotonic() + seconds, principal)
        self._of.setdefault(principal.id, set()).add(credential)
        if len(self._known) > SIZE:
            self._drop(next(iter(self._known)))

    def _drop(self, credential: str) -> None:
        _, principal = self._known.pop(credential)
        mine = self._of[principal.id]
        mine.discard(credential)
        if not mine:
            del self._of[principal.id]

    def forget(self, user_id: int) -> None:
        """Look this person's credentials up again at their next use."""
        self.generation += 1
        for credential in tuple(self._of.get(user_id, ())):
            self._drop(credential)

    def forget_all(self) -> None:
        """Look everybody up again."""
        self.generation += 1
        self._known.clear()
        self._of.clear()

    def heard(self, tags: Iterable[str]) -> None:
        """Another process has forgotten these; of everything, when something may have been missed."""
        for tag in tags:
            if tag in (EVERYBODY, EVERYTHING):
                self.forget_all()
            elif tag.startswith(PERSON):
                self.forget(int(tag.removeprefix(PERSON)))


def forget(session: AsyncSession, user_id: int) -> None:
    """When this session commits: what this person may do has changed, or one of their credentials has ended."""
    principals: Principals | None = session.info.get("principals")
    if principals is not None:
        after_commit(session, lambda: principals.forget(user_id), if_unsure=True)
        invalidate(session, f"{PERSON}{user_id}")


def forget_all(session: AsyncSession) -> None:
    """When this session commits: what many may do has changed."""
    principals: Principals | None = session.info.get("principals")
    if principals is not None:
        after_commit(session, principals.forget_all, if_unsure=True)
        invalidate(session, EVERYBODY)
