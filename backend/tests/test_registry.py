"""The registry refuses what does not fit together, and leaves out what is switched off."""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import ModuleType

import pytest
from fastapi import FastAPI

from backend.core.auth import Permission, Rank
from backend.core.feature import BadFeature, Feature, Registry, load


@pytest.fixture(autouse=True)
def package() -> Iterator[None]:
    features = {
        "a": Feature(name="a", summary="A"),
        "b": Feature(name="b", summary="B", needs=("a",)),
        "c": Feature(name="other", summary="C"),
        "d": Feature(name="d", summary="D", permissions=(Permission(name="x:y", summary="", rank=Rank.USER),)),
        "e": Feature(name="e", summary="E", permissions=(Permission(name="x:y", summary="", rank=Rank.USER),)),
    }
    for name, feature in features.items():
        module = ModuleType(f"toy.{name}")
        module.feature = feature  # type: ignore[attr-defined]
        sys.modules[f"toy.{name}"] = module
    sys.modules["toy"] = ModuleType("toy")
    yield
    for name in ("toy", *(f"toy.{name}" for name in features)):
        del sys.modules[name]


def test_features_come_in_order_without_those_switched_off() -> None:
    assert load("toy", ["a", "b"]).names == ("a", "b")
    assert load("toy", ["a", "b"], off=["b"]).names == ("a",)


@pytest.mark.parametrize(
    ("names", "off", "complaint"),
    [
        (["b", "a"], [], "'b' needs a"),
        (["a", "b"], ["a"], "'b' needs a"),
        (["a", "a"], [], "listed twice"),
        (["c"], [], "calls itself 'other'"),
        (["a"], ["z"], "unknown features: z"),
        (["d", "e"], [], "'e' and 'd' both declare the permission x:y"),
    ],
)
def test_what_does_not_fit_is_said(names: list[str], off: list[str], complaint: str) -> None:
    with pytest.raises(BadFeature, match=complaint):
        load("toy", names, off=off)


async def test_lifespans_are_entered_in_order_and_left_in_reverse() -> None:
    steps: list[str] = []

    def noting(name: str) -> Feature:
        @asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            steps.append(f"+{name}")
            yield
            steps.append(f"-{name}")

        return Feature(name=name, summary=name, lifespan=lifespan)

    async with Registry(features=(noting("a"), noting("b"))).lifespan(FastAPI()):
        steps.append("serving")
    assert steps == ["+a", "+b", "serving", "-b", "-a"]


async def test_without_a_console_sign_in_there_is_no_console() -> None:
    assert Registry(features=()).console_sign_in is None
