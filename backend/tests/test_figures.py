"""Figures that parts keep: each is read by name, they are few, and no two have the same name."""

from collections.abc import Callable

import pytest
from fastapi import FastAPI

from backend.core.feature import Feature, Registry
from backend.core.figures import MOST_SERIES, Figure, Figures


def reading(app: FastAPI, name: str) -> dict[tuple[str, ...], float]:
    return next(dict(found) for figure, found in app.state.figures.read() if figure.name == name)


async def test_a_circuit_says_which_state_it_is_in(make_app: Callable[..., FastAPI]) -> None:
    app = make_app()
    assert reading(app, "circuit_state") == {}
    breaker = await app.state.breakers.get("mail", threshold=1)
    assert reading(app, "circuit_state")["mail", "closed"] == 1
    with pytest.raises(LookupError):
        async with breaker:
            raise LookupError
    now = reading(app, "circuit_state")
    assert now == {("mail", "closed"): 0, ("mail", "half-opened"): 0, ("mail", "opened"): 1}


def test_a_feature_contributes_figures_and_their_series_are_bounded() -> None:
    app = FastAPI()
    app.state.sheep = 0
    many = Figure(name="wool", help="", labels=("sheep",), read=lambda _: {(str(n),): n for n in range(1000)})
    one = Figure(name="sheep", help="", kind="counter", read=lambda app: app.state.sheep)
    registry = Registry(features=(Feature(name="flock", summary="", figures=(one, many)),))
    figures = Figures(app, registry.figures)
    app.state.sheep = 7
    now = {figure.name: found for figure, found in figures.read()}
    assert now["sheep"] == {(): 7}
    assert len(now["wool"]) == MOST_SERIES


def test_two_figures_of_one_name_are_refused() -> None:
    figure = Figure(name="sheep", help="", read=lambda _: 1)
    with pytest.raises(ValueError, match="sheep"):
        Figures(FastAPI(), (figure, figure))
