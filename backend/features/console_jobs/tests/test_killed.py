"""Real processes: one that is stopped or killed in the middle leaves nothing half done, and another goes on."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from alembic import command
from sqlalchemy import create_engine, insert
from sqlalchemy.engine import make_url
from sqlmodel import Session, col, select

from backend.core.db import sync_url
from backend.core.models import utc_now
from backend.features.console_jobs.models import ConsoleJob
from backend.features.users.models import User
from backend.testing import (
    PASSWORD,
    PASSWORD_HASH,
    PATIENT,
    ROOT,
    axe,
    free_port,
    run_alembic,
    temporary_database,
    wait_until_ready,
)

audit = pytest.importorskip("backend.features.audit.models", reason="the log tells who did what how often")

USERS = {"postgresql": 2500}  # elsewhere as many as take less time
FEW = 1200
VARIABLES = {"CONSOLE_JOBS__POLL_SECONDS": "0.1", "CONSOLE_JOBS__LEASE_SECONDS": "2", "SERVER__DRAIN_SECONDS": "0.5"}


@contextmanager
def filled_database(name: str) -> Iterator[str]:
    moment = {"created_at": utc_now(), "updated_at": utc_now(), "version": 1, "email_verified_at": utc_now()}
    shared = moment | {"password_hash": PASSWORD_HASH, "is_active": True, "full_name": ""}
    people = [shared | {"email": f"bulk{number}@example.com", "role": "user"} for number in range(USERS.get(name, FEW))]
    with temporary_database(name) as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        engine = create_engine(sync_url(url))
        with engine.begin() as connection:
            connection.execute(insert(User), [*people, shared | {"email": "admin@example.com", "role": "admin"}])
        engine.dispose()
        yield url


class Server:
    """A process that may be stopped and started again, on one port."""

    def __init__(self, url: str) -> None:
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.environment = os.environ | PATIENT | VARIABLES | {"PORT": str(self.port), "DATABASE_URL": url}
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "backend", "serve"]
        self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment)
        wait_until_ready(self.base, self.process)

    def end(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(timeout=40)


@pytest.fixture
def server(database_name: str) -> Iterator[tuple[Server, str]]:
    """A server with many accounts, and the URL of its database."""
    with filled_database(database_name) as url:
        server = Server(url)
        try:
            yield server, url
        finally:
            server.process.kill()
            server.process.wait()


@contextmanager
def signed_in(base: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=base, headers={"Sec-Fetch-Site": "same-origin"}) as browser:
        form = {"username": "admin@example.com", "password": PASSWORD}
        assert browser.post("/admin/login", data=form).status_code == 303
        yield browser


def told(url: str) -> ConsoleJob:
    engine = create_engine(sync_url(url))
    with Session(engine) as session:
        job = session.exec(select(ConsoleJob)).one()
    engine.dispose()
    return job


def until(url: str, done: int, *, within: float = 60) -> ConsoleJob:
    """The job as soon as so many are done, or it is over."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        job = told(url)
        if job.done >= done or job.is_over:
            return job
        time.sleep(0.05)
    raise TimeoutError(f"only {job.done} are done")


@pytest.mark.slow
def test_stopped_and_killed_in_the_middle_each_record_is_handled_once(server: tuple[Server, str]) -> None:
    process, url = server
    users = USERS.get(make_url(url).get_backend_name(), FEW)
    with signed_in(process.base) as browser:
        form = {"matching": "1", "query": "search=bulk", "confirmed": "1"}
        answer = browser.post("/admin/user/action/deactivate", data=form)
        assert answer.status_code == 303
        page = httpx2.URL(answer.headers["Location"]).path

        assert until(url, 1).state == "running"
        process.end(signal.SIGTERM)
        stopped = told(url)
        assert (stopped.state, stopped.holder) == ("waiting", "")  # others need not wait for a sign of life
        assert 0 < stopped.done < users
        process.start()

        for _ in range(2):
            before = told(url).done
            assert until(url, before + 1).state == "running"
            assert process.end(signal.SIGKILL) == -signal.SIGKILL
            assert told(url).done < users
            process.start()

        job = until(url, users, within=120)
        assert f"Done: {users:,} of {users:,}" in browser.get(page).text
    assert (job.state, job.done, job.refused) == ("done", users, 0)
    engine = create_engine(sync_url(url))
    with Session(engine) as session:
        people = session.exec(select(User).where(col(User.email).startswith("bulk"))).all()
        log = session.exec(select(audit.AuditEntry)).all()
        boss = session.exec(select(User.id).where(User.email == "admin@example.com")).one()
    engine.dispose()
    assert {(person.is_active, person.version) for person in people} == {(False, 2)}
    once = {person.id: 1 for person in people}
    assert Counter(int(one.subject_id) for one in log if one.action == "users.updated") == once
    acted = [one for one in log if one.action == "console.acted"]
    assert Counter(one for entry in acted for one in entry.details["ids"]) == once
    assert {(entry.actor_id, entry.via) for entry in acted} == {(boss, "console")}
    assert {entry.request_id for entry in acted} == {f"console-job-{job.id}"}


@pytest.mark.browser
async def test_its_progress_is_seen_in_a_browser(page: Any) -> None:
    with filled_database("sqlite") as url:
        process = Server(url)
        try:
            await page.goto(f"{process.base}/admin/")
            await page.get_by_label("E-mail address").fill("admin@example.com")
            await page.get_by_label("Password").fill(PASSWORD)
            await page.get_by_role("button", name="Sign in").click()
            await page.goto(f"{process.base}/admin/user/list?search=bulk")
            await page.get_by_label("all 1,200 that match").check()
            await page.get_by_role("button", name="Deactivate").click()
            await page.get_by_text("1,200 users. This runs in the background; you may leave the page.").wait_for()
            assert await axe(page) == []
            await page.get_by_role("button", name="Deactivate").click()
            progress = page.get_by_role("progressbar", name=re.compile("of 1,200"))
            await progress.wait_for()
            assert await axe(page) == []
            await page.get_by_text(re.compile("Running: [1-9]")).wait_for()  # it loads itself again
            await page.get_by_role("button", name="Cancel what is left").click()
            await page.get_by_text("Cancelled:").wait_for()
            assert 0 < await progress.evaluate("bar => bar.value") < FEW
            assert await axe(page) == []
            await page.get_by_role("link", name="Back to the list").click()
            await page.get_by_role("heading", name="Users").wait_for()
            await page.goto(f"{process.base}/admin/console-job/list")
            assert await axe(page) == []
            await page.get_by_role("link", name="Deactivate users").click()
            await page.get_by_text("Cancelled:").wait_for()
        finally:
            process.process.kill()
            process.process.wait()
