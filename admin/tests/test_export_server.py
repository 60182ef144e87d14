"""Exports from a real server: its memory while it sends a long one, and what becomes of those that nobody reads."""

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack

import httpx2
import pytest
from alembic import command
from sqlalchemy import create_engine, insert

from admin.exporting import AT_ONCE
from backend.core.db import sync_url
from backend.core.models import utc_now
from backend.features.users.models import User
from backend.testing import PASSWORD, PASSWORD_HASH, memory_of, run_alembic, running_server, temporary_database

USERS = 60_000
MEGABYTES = 50  # that an export may take, however long it is
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@pytest.fixture(scope="module")
def server(database_name: str) -> Iterator[str]:
    """The base URL of a server with many accounts."""
    moment = {"created_at": utc_now(), "updated_at": utc_now(), "version": 1, "email_verified_at": utc_now()}
    shared = moment | {"password_hash": PASSWORD_HASH, "is_active": True, "full_name": "x" * 200}
    people = [shared | {"email": f"user{number}@example.com", "role": "user"} for number in range(USERS)]
    with temporary_database(database_name) as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        engine = create_engine(sync_url(url))
        with engine.begin() as connection:
            connection.execute(insert(User), [*people, shared | {"email": "admin@example.com", "role": "admin"}])
        engine.dispose()
        with running_server(DATABASE_URL=url) as base:
            yield base


@pytest.fixture
def browser(server: str) -> Iterator[httpx2.Client]:
    headers = {"Sec-Fetch-Site": "same-origin", "Accept-Encoding": "identity"}
    with httpx2.Client(base_url=server, headers=headers) as browser:
        form = {"username": "admin@example.com", "password": PASSWORD}
        assert browser.post("/admin/login", data=form).status_code == 303
        yield browser


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "json", "xlsx"])
def test_a_long_export_takes_no_memory_to_speak_of(server: str, browser: httpx2.Client, kind: str) -> None:
    port = httpx2.URL(server).port or 0
    browser.get("/admin/user/export/csv?search=admin")
    idle = peak = memory_of(port)
    size = 0
    with browser.stream("GET", f"/admin/user/export/{kind}") as answer:
        for chunk in answer.iter_raw(512 * 1024):
            size += len(chunk)
            peak = max(peak, memory_of(port))
    assert size > USERS * 5
    assert peak - idle < MEGABYTES


@pytest.mark.slow
def test_whoever_hangs_up_gives_the_place_back(browser: httpx2.Client) -> None:
    reading = []
    with ExitStack() as hanging:
        for _ in range(AT_ONCE):
            answer = hanging.enter_context(browser.stream("GET", "/admin/user/export/json"))
            assert answer.status_code == 200
            reading.append(answer.iter_raw(1024))  # kept: it closes the connection when it goes
            next(reading[-1])  # and no further: the server cannot send on, and waits
        refused = browser.get("/admin/user/export/json?search=admin")
        assert (refused.status_code, "Other exports are running" in refused.text) == (503, True)
    deadline = time.monotonic() + 20
    while (status := browser.get("/admin/user/export/json?search=admin").status_code) == 503:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert status == 200
