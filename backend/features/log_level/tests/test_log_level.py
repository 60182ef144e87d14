"""The level of the log is another one for a while: in all processes, where there is Redis."""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest
import structlog
from fastapi import FastAPI
from sqlalchemy import event

from backend.core import logging as our_logging
from backend.core.commits import RequestSession
from backend.core.config import Settings
from backend.features import FEATURES
from backend.features.log_level.level import levels_of

LEVEL = "/api/v2/log-level"


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    yield
    our_logging.configure(Settings(log={"level": "warning"}))


@pytest.fixture
async def app(app: FastAPI) -> AsyncIterator[FastAPI]:
    yield app
    await app.state.redis.delete(levels_of(app).key)
    levels_of(app).take(None)


async def test_it_changes_at_once_and_says_for_how_long(
    as_admin: httpx2.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = {"level": "warning", "usual": "warning", "seconds": None, "everywhere": True}
    assert (await as_admin.get(LEVEL)).json() == usual
    answer = await as_admin.put(LEVEL, json={"level": "debug", "seconds": 60.0})  # an integer to JSON Schema
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"level": "debug", "usual": "warning", "seconds": 60, "everywhere": True}
    structlog.get_logger().debug("our line")
    logging.getLogger("aiosqlite").debug("their line, with values")
    written = capsys.readouterr().err
    assert "our line" in written
    assert "their line" not in written
    read = (await as_admin.get(LEVEL)).json()
    assert 55 <= read.pop("seconds") <= 60
    assert read == {"level": "debug", "usual": "warning", "everywhere": True}
    assert (await as_admin.put(LEVEL, json={"level": "error"})).json()["seconds"] == 900
    structlog.get_logger().warning("not severe")
    assert "not severe" not in capsys.readouterr().err


async def test_what_is_not_committed_changes_nothing(
    app: FastAPI, as_admin: httpx2.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(_session: RequestSession) -> None:
        raise ConnectionResetError("the database hung up")

    event.listen(RequestSession, "before_commit", refuse)
    try:
        assert (await as_admin.put(LEVEL, json={"level": "debug"})).status_code >= 500
    finally:
        event.remove(RequestSession, "before_commit", refuse)
    levels = levels_of(app)
    await levels.look()
    assert (levels.level, levels.wish, logging.root.level) == ("warning", None, logging.WARNING)
    assert not await app.state.redis.exists(levels.key)
    assert (await as_admin.put(LEVEL, json={"level": "debug"})).status_code == 200
    assert levels.level == "debug"


async def test_it_ends_by_itself(app: FastAPI, as_admin: httpx2.AsyncClient) -> None:
    await as_admin.put(LEVEL, json={"level": "debug", "seconds": 1})
    async with asyncio.timeout(20):
        while (await as_admin.get(LEVEL)).json()["level"] != "warning":
            await asyncio.sleep(0.05)
    assert logging.root.level == logging.WARNING


async def test_other_processes_hear_of_it(make_app: Callable[..., FastAPI]) -> None:
    redis = {
        "REDIS_URL": os.environ["TEST_REDIS_URL"],
        "REDIS__PREFIX": f"test-{secrets.token_hex(4)}",
        "REDIS__TIMEOUT": "10",
    }
    async with AsyncExitStack() as stack:
        one, two = (levels_of(make_app(**redis, FEATURES_OFF="")) for _ in range(2))
        for levels in (one, two):
            stack.push_async_callback(levels.app.state.redis.aclose)
        await one.ask_for("debug", 60)
        await two.look()
        assert (one.level, two.level) == ("debug", "debug")
        assert two.wish is not None
        assert 55 <= two.wish.seconds_left <= 60
        await two.ask_for("error", 1)
        async with asyncio.timeout(20):
            while "error" in (one.level, two.level) or "debug" in (one.level, two.level):
                await one.look()
                await two.look()
        assert (one.level, two.level) == ("warning", "warning")


@pytest.mark.parametrize("url", ["", "redis://127.0.0.1:1/0"])
async def test_without_redis_it_holds_in_the_process_that_answers(make_app: Callable[..., FastAPI], url: str) -> None:
    levels = levels_of(make_app(REDIS_URL=url))
    wish = await levels.ask_for("debug", 60)
    assert not wish.shared
    await levels.look()
    assert levels.level == "debug"
    levels.wish = None
    our_logging.choose_level(None, levels.settings)
    assert logging.root.level == logging.WARNING


@pytest.mark.parametrize(
    "body", [{}, {"level": "loud"}, {"level": "debug", "seconds": 0}, {"level": "debug", "seconds": 86401}]
)
async def test_what_is_no_level_is_422(as_admin: httpx2.AsyncClient, body: dict[str, Any]) -> None:
    assert (await as_admin.put(LEVEL, json=body)).status_code == 422


async def test_staff_may_not(as_staff: httpx2.AsyncClient) -> None:
    assert (await as_staff.get(LEVEL)).status_code == 403
    assert (await as_staff.put(LEVEL, json={"level": "debug"})).status_code == 403


@pytest.mark.skipif("audit" not in FEATURES, reason="this tree has no audit log")
async def test_who_did_it_is_in_the_audit_log(as_admin: httpx2.AsyncClient) -> None:
    await as_admin.put(LEVEL, json={"level": "debug", "seconds": 60})
    [entry] = (await as_admin.get("/api/v1/audit?action=log_level.changed")).json()["items"]
    assert entry["details"] == {"level": "debug", "seconds": 60}
