"""Runbooks name every feature whose commands, tables, settings or log lines they send people to."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlmodel import SQLModel

from backend.features import FEATURES
from backend.features.metrics.tests.test_prometheus import RUNBOOKS, needed
from backend.tests.test_access import api_routes

LOGGED = {"`request`": "access_log", '"client"': "access_log"}  # lines of the log, and what is in them alone


def feature_of(module: str) -> str:
    return module.split(".")[2] if module.startswith("backend.features.") else ""


def asked_of(page: str, app: FastAPI) -> Iterator[str]:
    """The features of what is in a page; an empty text for what is the kernel's."""
    classes = (mapper.class_ for mapper in SQLModel._sa_registry.mappers)
    tables = {one.__tablename__: feature_of(one.__module__) for one in classes}
    yield from (tables[name] for name in re.findall(r"(?:FROM|JOIN) (\w+)", page) if name in tables)
    settings = {
        str(one.settings.model_config["env_prefix"]): one.name for one in app.state.registry.features if one.settings
    }
    yield from (settings.get(f"{name}__", "") for name in re.findall(r"\b([A-Z]+(?:_[A-Z]+)*)__[A-Z]", page))
    for path in re.findall(r"(?<![\w.])(?:https://your\.host)?(/(?:api/v\d|health|ready|live|metrics)[\w/-]*)", page):
        template = re.sub(r"/\d+(?=/|$)", "/{}", path)
        yield from (
            feature_of(one.module) for one in api_routes(app) if re.sub(r"{\w+(:\w+)?}", "{}", one.path) == template
        )
    yield from (name for said, name in LOGGED.items() if said in page)


@pytest.mark.slow  # knows features that a tree may lack
@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("mainstay*.md")), ids=lambda page: page.stem)
def test_a_runbook_names_the_features_that_it_asks(page: Path, make_app: Callable[..., FastAPI]) -> None:
    text = page.read_text()
    needs = needed(text)
    assert needs <= set(FEATURES)
    assert set(asked_of(text, make_app())) - {""} <= needs


def test_what_is_asked_for_is_seen(make_app: Callable[..., FastAPI]) -> None:
    app = make_app()
    page = "lines `request` … METRICS__TOKEN … DATABASE__ECHO … FROM pg_stat_activity … https://your.host/metrics"
    assert set(asked_of(page, app)) == {"access_log", "metrics", ""}
    if "users" in FEATURES:
        assert set(asked_of("SELECT * FROM users", app)) == {"users"}
        assert set(asked_of("curl https://your.host/api/v1/users/1", app)) == {"users"}
