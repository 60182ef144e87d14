"""The console's page for the level of the log: who sees it, what it says, and what it changes."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from backend.core import logging as our_logging
from backend.core.config import Settings
from backend.features import FEATURES
from backend.features.log_level.level import levels_of

PAGE = "/admin/log-level"
Console = Callable[..., Awaitable[httpx2.AsyncClient]]
MakeUser = Callable[..., Awaitable[Any]]


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    yield
    our_logging.configure(Settings(log={"level": "warning"}))


@pytest.fixture
async def app(app: FastAPI) -> AsyncIterator[FastAPI]:
    yield app
    await app.state.redis.delete(levels_of(app).key)
    levels_of(app).take(None)


@pytest.fixture
async def browser(app: FastAPI, console: Console, make_user: MakeUser) -> httpx2.AsyncClient:
    return await console((await make_user("admin")).email)


async def test_it_says_what_holds_until_when_and_where(app: FastAPI, browser: httpx2.AsyncClient) -> None:
    before = (await browser.get(PAGE)).text
    assert "Now: warning" in before
    assert "As the settings say, in all processes" in before
    after = await browser.post(PAGE, data={"level": "debug", "seconds": "900"})
    assert after.status_code == 200
    for text in (after.text, (await browser.get(PAGE)).text):
        assert "Now: debug" in text
        assert "in all processes" in text
        [until] = re.findall(r'<time datetime="([^"]+)">', text)
        left = datetime.fromisoformat(until) - datetime.now(UTC)
        assert timedelta(minutes=14) < left <= timedelta(minutes=15)
    assert levels_of(app).level == "debug"


async def test_it_is_ended_before_its_time(app: FastAPI, browser: httpx2.AsyncClient) -> None:
    assert "Back to warning" not in (await browser.get(PAGE)).text
    assert "Back to warning" in (await browser.post(PAGE, data={"level": "error", "seconds": "300"})).text
    ended = (await browser.post(PAGE, data={"action": "usual"})).text
    assert "Now: warning" in ended
    assert "As the settings say" in ended
    assert levels_of(app).level == "warning"


async def test_without_redis_it_says_that_other_processes_do_not_follow(
    app: FastAPI, browser: httpx2.AsyncClient
) -> None:
    client, app.state.redis = app.state.redis, None
    try:
        assert "Without Redis it changes in the process" in (await browser.get(PAGE)).text
        changed = await browser.post(PAGE, data={"level": "debug", "seconds": "300"})
        assert "in the process that shows this page only" in changed.text
    finally:
        app.state.redis = client


@pytest.mark.parametrize(
    "form", [{"level": "loud", "seconds": "900"}, {"level": "debug", "seconds": "86401"}, {"seconds": "x"}, {}]
)
async def test_what_is_no_level_or_no_time_changes_nothing(
    app: FastAPI, browser: httpx2.AsyncClient, form: dict[str, str]
) -> None:
    answer = await browser.post(PAGE, data=form)
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert levels_of(app).level == "warning"


async def test_only_those_who_may_change_it_see_the_page(
    app: FastAPI, browser: httpx2.AsyncClient, console: Console, make_user: MakeUser
) -> None:
    staff = await console((await make_user("staff")).email)
    assert PAGE in (await browser.get("/admin/")).text
    assert PAGE not in (await staff.get("/admin/")).text
    answers = [await staff.get(PAGE), await staff.post(PAGE, data={"level": "debug", "seconds": "900"})]
    assert [answer.status_code for answer in answers] == [403, 403]
    assert levels_of(app).level == "warning"


@pytest.mark.skipif("audit" not in FEATURES, reason="this tree has no audit log")
async def test_a_change_is_recorded_as_by_the_api(browser: httpx2.AsyncClient, as_admin: httpx2.AsyncClient) -> None:
    await browser.post(PAGE, data={"level": "debug", "seconds": "900"})
    [entry] = (await as_admin.get("/api/v1/audit?action=log_level.changed")).json()["items"]
    assert entry["details"] == {"level": "debug", "seconds": 900}
    assert entry["via"] == "console"
