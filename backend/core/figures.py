"""Figures that parts keep about themselves, for whoever watches: Prometheus, the console, a dashboard.

A part counts in a plain number or dictionary, which costs nothing, and says by a `Figure` how it is read. What reads it
is no business of the part's: the `metrics` feature can be taken out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from fastapi import FastAPI

Reading = Mapping[tuple[str, ...], float]  # values of the labels, in their order → number

MOST_SERIES = 100  # of one figure; what would be more is left out, so that no label value can fill a memory


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One number, or one per combination of labels, which must be few: names of parts, never of people or paths.

    `read` is called on the event loop, whenever somebody looks: it must be quick, and work before the lifespan began.
    """

    name: str  # snake_case, with its unit; a counter's without `_total`
    help: str
    read: Callable[[FastAPI], float | Reading]
    kind: Literal["gauge", "counter"] = "gauge"  # counter: only ever grows
    labels: tuple[str, ...] = ()
    together: Literal["sum", "max"] = "sum"  # what several processes' gauges are as one


class Figures:
    """All figures of one app. ValueError when two have the same name."""

    def __init__(self, app: FastAPI, figures: Iterable[Figure]) -> None:
        self._app = app
        self.all = tuple(figures)
        names = [one.name for one in self.all]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"Two figures are called {min(twice)}")

    def read(self) -> Iterator[tuple[Figure, Reading]]:
        """Each figure, with what it says now; one without labels under the key `()`."""
        for figure in self.all:
            found = figure.read(self._app)
            reading = found if isinstance(found, Mapping) else {(): found}
            yield figure, dict(islice(reading.items(), MOST_SERIES))
