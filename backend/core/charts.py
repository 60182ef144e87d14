"""Curves as SVG, drawn here: complete without JavaScript, and nothing to load."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import floor, log10

from backend.core.status import UNKNOWN, Chart, number

WIDTH, HEIGHT = 640, 160  # units of the drawing, which fills whatever place there is
STEPS = (1, 2, 2.5, 5, 10)


def ceiling(most: float) -> float:
    """The next round number above, for the axis."""
    if most <= 0:
        return 1
    magnitude = 10.0 ** floor(log10(most))
    return next(step * magnitude for step in STEPS if step * magnitude >= most * (1 - 1e-9))


def path(values: Sequence[float | None], top: float, width: float, height: float) -> str:
    """The `d` of a path; it is lifted where nothing is known. A single point is a dot."""
    span = max(len(values) - 1, 1)
    parts: list[str] = []
    drawing = False
    for index, value in enumerate(values):
        if value is None:
            drawing = False
            continue
        x, y = index / span * width, height - value / top * height
        parts.append(f"{'L' if drawing else 'M'}{x:.1f} {y:.1f}")
        alone = not drawing and (index + 1 == len(values) or values[index + 1] is None)
        parts.append("h.01" if alone else "")
        drawing = True
    return "".join(parts)


@dataclass(frozen=True)
class Curve:
    label: str
    d: str
    last: str  # the newest value, as text


@dataclass(frozen=True)
class Drawing:
    """What the template needs."""

    curves: Sequence[Curve]
    ticks: Sequence[tuple[float, str]]  # y, label
    first: datetime | None
    last: datetime | None
    width: int = WIDTH
    height: int = HEIGHT


def drawn(chart: Chart) -> Drawing:
    """A chart → curves within the drawing's units, from zero to a round number."""
    known = [value for line in chart.lines for value in line.values if value is not None]
    top = ceiling(max(known, default=0))
    curves = []
    for line in chart.lines:
        newest = next((value for value in reversed(line.values) if value is not None), None)
        last = UNKNOWN if newest is None else f"{number(newest)} {chart.unit}".strip()
        curves.append(Curve(line.label, path(line.values, top, WIDTH, HEIGHT), last))
    ticks = [(HEIGHT * (1 - part), f"{number(top * part)} {chart.unit}".strip()) for part in (1, 0.5, 0)]
    times = chart.times
    return Drawing(curves, ticks, times[0] if times else None, times[-1] if times else None)


def sparkline(values: Sequence[float | None], width: int, height: int) -> str:
    """A small curve without axes, from zero up."""
    return path(values, max((value for value in values if value is not None), default=0) or 1, width, height)
