"""How often things happen that are stored: sign-ins, purchases. What was rolled back has not happened.

A feature makes a `Tally`, and lists its `figure`: that the metrics go away does not matter to it.

    SOLD = Tally("boxes_sold", "Boxes sold, by size.", label="size", values=("small", "large"))
    feature = Feature(…, figures=(SOLD.figure,), on={BoxSold: SOLD.hear("small")})  # or SOLD.add(session, "small")
"""

from collections import Counter
from typing import Any

from fastapi import FastAPI
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.commits import after_commit
from backend.core.events import Handler
from backend.core.figures import Figure, Reading

Tallies = Counter[tuple[str, str]]  # tally and value of its label → how often; one for each app, in `app.state.tallies`


class Tally:
    """A counter, and its numbers in each app. `values`: all that its label can be, so that nobody makes series up."""

    def __init__(self, name: str, help: str, *, label: str = "", values: tuple[str, ...] = ("",)) -> None:  # noqa: A002
        self.name = name
        self.values = values
        labels = (label,) if label else ()
        self.figure = Figure(name=name, help=help, kind="counter", labels=labels, read=self._read)

    def _read(self, app: FastAPI) -> Reading:
        tallies: Tallies = app.state.tallies
        keys = ((value,) if self.figure.labels else () for value in self.values)
        return {key: tallies[self.name, value] for key, value in zip(keys, self.values, strict=True)}

    def _key(self, value: str) -> tuple[str, str]:
        if value not in self.values:
            raise ValueError(f"{self.name} has no {value!r}")
        return self.name, value

    def add(self, session: AsyncSession, value: str = "", *, many: int = 1) -> None:
        """It has happened, once the session commits. Not counted in sessions without an app: scripts, notebooks."""
        key = self._key(value)
        tallies: Tallies | None = session.info.get("tallies")
        if tallies is not None:
            after_commit(session, lambda: tallies.update({key: many}))

    def add_now(self, app: FastAPI, value: str = "") -> None:
        """It has happened, whatever is committed."""
        app.state.tallies[self._key(value)] += 1

    def hear(self, value: str = "") -> Handler:
        """A handler for `Feature.on`."""
        self._key(value)

        async def add(session: AsyncSession, _event: Any) -> None:
            self.add(session, value)

        return add
