"""Whenever a server is killed (SIGKILL), whoever repeats the request gets the answer, and the work is done once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest
from alembic import command
from sqlalchemy import create_engine, text
from sqlmodel import Session

from backend.core.db import sync_url
from backend.features.users.models import User
from backend.testing import (
    PASSWORD,
    PASSWORD_HASH,
    ROOT,
    free_port,
    run_alembic,
    running_server,
    temporary_database,
    wait_until_ready,
)

pytestmark = pytest.mark.slow

LOCK = {"IDEMPOTENCY__LOCK_SECONDS": "1"}


@contextmanager
def doomed_server(factory: str, url: str) -> Iterator[str]:
    """A server that kills itself; sees to it that it has died of SIGKILL in the end."""
    port = free_port()
    module = f"backend.features.idempotency.tests.killed:{factory}"
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--factory", module, "--port", str(port), "--log-level", "warning"],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": url, "LOG__LEVEL": "warning"} | LOCK,
    )
    base = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(base, process)
        yield base
        assert process.wait(timeout=20) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def url(database_name: str) -> Iterator[str]:
    """A database that outlives its server, with an administrator."""
    with temporary_database(database_name) as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        engine = create_engine(sync_url(url))
        with Session(engine) as session:
            session.add(User(email="admin@example.com", role="admin", password_hash=PASSWORD_HASH))
            session.commit()
        engine.dispose()
        yield url


def stored(url: str) -> tuple[list[str], int]:
    """The accounts made, how many keys are known."""
    engine = create_engine(sync_url(url))
    with engine.connect() as connection:
        emails = connection.execute(text("SELECT email FROM users WHERE role = 'user' ORDER BY id")).scalars().all()
        keys = connection.execute(text("SELECT count(*) FROM idempotency_keys")).scalar_one()
    engine.dispose()
    return list(emails), keys


def asked(base: str, factory: str, token: str) -> httpx2.Response:
    """The same request each time, one for each way to die."""
    body = {"email": f"{factory}@example.com", "password": PASSWORD}
    headers = {"Idempotency-Key": factory, "Authorization": f"Bearer {token}"}
    return httpx2.post(f"{base}/api/v1/users", json=body, headers=headers)


def insisted(base: str, factory: str, token: str) -> httpx2.Response:
    """Until the claim of the dead has run out; TimeoutError when it never does."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        answer = asked(base, factory, token)
        if answer.status_code == 201:
            return answer
        assert answer.json()["error"]["code"] == "idempotency_in_progress"
        time.sleep(0.2)
    raise TimeoutError


def test_the_work_is_done_once_and_the_answer_arrives(url: str) -> None:
    tokens = {}
    for factory in ("before_the_answer", "before_the_commit"):
        with doomed_server(factory, url) as base:
            form = {"username": "admin@example.com", "password": PASSWORD}
            tokens[factory] = httpx2.post(f"{base}/api/v1/auth/token", data=form).json()["access_token"]
            with pytest.raises(httpx2.HTTPError):
                asked(base, factory, tokens[factory])
    assert stored(url) == (["before_the_answer@example.com"], 2)
    with running_server(DATABASE_URL=url, **LOCK) as base:
        first = {factory: insisted(base, factory, token) for factory, token in tokens.items()}
        assert [name for name, one in first.items() if "Idempotent-Replayed" in one.headers] == ["before_the_answer"]
        for factory, answer in first.items():
            again = asked(base, factory, tokens[factory])
            assert (again.content, again.headers["Idempotent-Replayed"]) == (answer.content, "true")
            assert answer.json()["email"] == f"{factory}@example.com"
    assert stored(url) == (["before_the_answer@example.com", "before_the_commit@example.com"], 2)
