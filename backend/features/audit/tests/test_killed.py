"""A server that is killed (SIGKILL) never leaves a change without its entry, or an entry without its change."""

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest
from alembic import command
from sqlalchemy import create_engine
from sqlmodel import Session, col, select

from backend.core.db import sync_url
from backend.features.audit.models import AuditEntry
from backend.features.users.models import User
from backend.testing import ROOT, free_port, run_alembic, temporary_database, wait_until_ready

PASSWORD = "a-long-enough-secret-1"
KEPT_BY = ["account.created", "users.created"]  # what a sign-up leaves in the log

pytestmark = pytest.mark.slow


@contextmanager
def doomed_server(factory: str, url: str, *, killed_at: int = 1) -> Iterator[str]:
    """A server that kills itself; yields its base URL and sees to it that it has died of SIGKILL in the end."""
    port = free_port()
    variables = {"DATABASE_URL": url, "KILLED_AT": str(killed_at), "LOG__LEVEL": "warning"}
    module = f"backend.features.audit.tests.killed:{factory}"
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", "--factory", module, "--port", str(port), "--log-level", "warning"],
        cwd=ROOT,
        env=os.environ | variables,
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
    """A migrated database that outlives its server."""
    with temporary_database(database_name) as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        yield url


def stored(url: str) -> tuple[dict[str, int], list[AuditEntry]]:
    """The accounts, e-mail address → key, and the log."""
    engine = create_engine(sync_url(url))
    with Session(engine) as session:
        users = {user.email: user.id or 0 for user in session.exec(select(User)).all()}
        log = session.exec(select(AuditEntry).order_by(col(AuditEntry.id))).all()
    engine.dispose()
    return users, list(log)


def sign_up(email: str) -> dict[str, str]:
    return {"email": email, "password": PASSWORD, "full_name": "Ada"}


def test_killed_between_commit_and_answer_both_account_and_entries_are_there(url: str) -> None:
    with doomed_server("before_the_answer", url) as base, pytest.raises(httpx2.HTTPError):
        httpx2.post(
            f"{base}/api/v1/auth/signup", json=sign_up("ada@example.com"), headers={"X-Request-ID": "last-words"}
        )
    users, log = stored(url)
    assert list(users) == ["ada@example.com"]
    assert sorted(one.action for one in log) == KEPT_BY
    for one in log:
        assert (one.subject_type, one.subject_id) == ("users", str(users["ada@example.com"]))
        assert (one.request_id, one.address, one.via) == ("last-words", "127.0.0.1", "anonymous")
    (change,) = [one for one in log if one.changes]
    assert change.changes["email"] == [None, "ada@example.com"]
    assert change.changes["full_name"] == [None, "Ada"]


def test_killed_before_the_commit_neither_account_nor_entry_is_there(url: str) -> None:
    with doomed_server("before_the_commit", url) as base, pytest.raises(httpx2.HTTPError):
        httpx2.post(f"{base}/api/v1/auth/signup", json=sign_up("ada@example.com"))
    assert stored(url) == ({}, [])


@pytest.mark.parametrize("factory", ["before_the_answer", "before_the_commit"])
async def test_killed_in_the_middle_of_fifty_sign_ups_accounts_and_entries_match_one_to_one(
    url: str, factory: str
) -> None:
    with doomed_server(factory, url, killed_at=20) as base:
        async with httpx2.AsyncClient(base_url=base, timeout=60) as client:
            sent = [client.post("/api/v1/auth/signup", json=sign_up(f"ada{n}@example.com")) for n in range(50)]
            answers = await asyncio.gather(*sent, return_exceptions=True)
    heard = {one.json()["email"] for one in answers if isinstance(one, httpx2.Response) and one.status_code == 201}
    users, log = stored(url)
    assert 19 <= len(users) < 50
    assert heard <= set(users)  # who was told of an account has one
    assert Counter(one.action for one in log) == Counter({action: len(users) for action in KEPT_BY})
    for action in KEPT_BY:
        assert {int(one.subject_id) for one in log if one.action == action} == set(users.values())
    for one in log:
        email = one.changes["email"][1] if one.changes else one.details["email"]
        assert users[email] == int(one.subject_id)
