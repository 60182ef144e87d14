"""What each process says of itself, what failed, and who gets to see it."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from alembic import command
from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import SQLModel, col, insert, select

from backend import __version__
from backend.core.db import Database
from backend.core.models import utc_now
from backend.core.status import RANGES, UNKNOWN, Stats, Table, Window
from backend.features.processes.models import FailedAnswer, ProcessReport
from backend.features.processes.panel import PANEL, together
from backend.features.processes.reporting import MOST_WAITING, report, reporter_of, tidy
from backend.testing import (
    PASSWORD,
    PATIENT,
    ROOT,
    MakeUser,
    free_port,
    new_client,
    run_alembic,
    temporary_database,
    wait_until_ready,
)

MakeApp = Callable[..., FastAPI]
HOST = socket.gethostname()


@pytest.fixture
def url(database_name: str) -> Iterator[str]:
    """A migrated database of this test's own."""
    with temporary_database(database_name) as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        yield url


def failing(app: FastAPI) -> FastAPI:
    """The app, with a route that fails."""

    @app.get("/fails/{number}")
    async def fails(number: int) -> None:
        raise LookupError(f"a secret of {number}")

    return app


async def fail(app: FastAPI, times: int = 1) -> None:
    async with new_client(app) as client:
        for number in range(times):
            answer = await client.get(f"/fails/{number}", headers={"X-Request-ID": f"request-{number}"})
            assert answer.status_code == 500


async def found(database: Database, table: type[SQLModel]) -> list[Any]:
    async with database.session(reading=True) as session:
        return list((await session.exec(select(table))).all())


async def shown(app: FastAPI, since: timedelta = RANGES["1h"]) -> tuple[dict[str, str], Table, Table]:
    """The panel: its numbers by their label, its processes, its failures."""
    now = utc_now()
    stats, processes, failures = await PANEL.read(app, Window("1h", now - since, now + timedelta(minutes=1)))
    assert isinstance(stats, Stats)
    assert isinstance(processes, Table)
    assert isinstance(failures, Table)
    return {one.label: one.value for one in stats.stats}, processes, failures


async def test_each_process_is_shown_and_all_together(url: str, make_app: MakeApp) -> None:
    apps = [failing(make_app(DATABASE_URL=url)) for _ in range(3)]
    for app in apps:
        async with new_client(app) as client:
            await client.get("/openapi.json")
        await report(app)
    numbers, processes, _ = await shown(apps[0])
    assert numbers["Processes"] == "3"
    assert len(processes.rows) == 3
    for row in processes.rows:
        assert row[0] == f"{HOST}:{os.getpid()}"
        assert row[1] == __version__
        assert str(row[-1]).endswith(" MiB")
        assert float(str(row[-1]).split()[0]) > 20
    reports = await found(apps[0].state.database, ProcessReport)
    limits = [one.figures["database_connections_limit"][0][1] for one in reports]
    summed = together(apps[0], reports)
    assert summed["database_connections_limit"] == {(): sum(limits)}
    assert sum(one.per_second for one in reports) > 0
    assert numbers["Mails waiting"] == "0"
    assert " of " in numbers["Database connections"]


async def test_a_process_has_one_row_which_says_how_it_is_now(url: str, make_app: MakeApp) -> None:
    app = make_app(DATABASE_URL=url)
    await report(app)
    app.state.observing.in_progress = 7
    await report(app)
    [row] = await found(app.state.database, ProcessReport)
    assert row.figures["http_requests_in_progress"] == [[[], 7]]


async def test_what_failed_is_told_with_its_request_and_its_kind_but_not_its_text(url: str, make_app: MakeApp) -> None:
    failed, answers = failing(make_app(DATABASE_URL=url)), make_app(DATABASE_URL=url)
    await fail(failed, 2)
    await report(failed)
    _, _, failures = await shown(answers)
    assert [row[1:5] for row in failures.rows] == [
        (500, "LookupError", "request-1", "GET /fails/{number}"),
        (500, "LookupError", "request-0", "GET /fails/{number}"),
    ]
    assert "secret" not in str(failures)
    assert (await shown(answers, since=timedelta(minutes=-1)))[2].rows == []


async def test_what_is_the_callers_fault_or_a_probe_is_no_failure(url: str, make_app: MakeApp) -> None:
    app = make_app(DATABASE_URL=url)
    async with new_client(app) as client:
        assert (await client.get("/nowhere")).status_code == 404
        await client.get("/health")
    assert not reporter_of(app).waiting


async def test_while_the_database_is_away_the_newest_failures_wait(make_app: MakeApp, tmp_path: Any) -> None:
    app = failing(make_app(DATABASE_URL=f"sqlite:///{tmp_path}/late.db"))
    await fail(app, 3)
    with pytest.raises(SQLAlchemyError):
        await report(app)
    await fail(app, MOST_WAITING)
    async with app.state.database.engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    await report(app)
    stored = await found(app.state.database, FailedAnswer)
    assert [one.request_id for one in stored] == [f"request-{number}" for number in range(MOST_WAITING)]
    await report(app)
    assert len(await found(app.state.database, FailedAnswer)) == MOST_WAITING


async def test_the_error_of_an_outage_is_the_drivers(make_app: MakeApp) -> None:
    app = make_app(DATABASE_URL="postgresql://nobody@127.0.0.1:9/none")
    async with new_client(app) as client:
        assert (await client.post("/api/v1/auth/token", data={"username": "a@b.c", "password": "x"})).status_code == 503
    [failure] = reporter_of(app).waiting
    assert failure["status"] == 503
    assert failure["error"] not in ("", "unavailable")


async def test_old_ones_are_deleted_and_who_is_silent_is_left_out(url: str, make_app: MakeApp) -> None:
    app = make_app(DATABASE_URL=url, PROCESSES__FAILURES_KEPT="3", PROCESSES__REPORT_SECONDS="10")
    database, now = app.state.database, utc_now()
    failure = {"process": "", "method": "GET", "route": "/", "status": 500, "error": "", "request_id": ""}
    ages = [timedelta(days=31), *(timedelta(minutes=age) for age in (5, 4, 3, 2))]
    process = {"host": "gone", "pid": 1, "version": "", "started_at": now, "per_second": 0.0, "memory": 0}
    silent = [("a", timedelta(days=2)), ("b", timedelta(minutes=5))]
    async with database.session() as session:
        await session.exec(insert(FailedAnswer), params=[{"at": now - age, **failure} for age in ages])
        rows = [{"name": name, "seen_at": now - age, "figures": {}, **process} for name, age in silent]
        await session.exec(insert(ProcessReport), params=rows)
        await session.commit()
    await tidy(database)
    assert [one.at for one in await found(database, FailedAnswer)] == [now - age for age in ages[2:]]
    assert [one.name for one in await found(database, ProcessReport)] == ["b"]
    numbers, processes, _ = await shown(app)
    assert (numbers["Processes"], processes.rows) == ("0", [])


async def test_what_another_version_says_is_shown_as_far_as_it_goes(url: str, make_app: MakeApp) -> None:
    app, now = make_app(DATABASE_URL=url), utc_now()
    row = {"name": "a", "host": "other", "pid": 1, "version": "0", "started_at": now, "seen_at": now, "per_second": 0.5}
    async with app.state.database.session() as session:
        await session.exec(insert(ProcessReport), params=[{**row, "memory": 2**20, "figures": {}}])
        await session.commit()
    numbers, processes, _ = await shown(app)
    assert numbers == {"Processes": "1", "Requests each second": "0.5", "In progress": "0", "Open circuits": "none"}
    [shown_row] = processes.rows
    assert shown_row[-3:] == (UNKNOWN, UNKNOWN, "1 MiB")


async def test_strangers_see_none_of_it(app: FastAPI, client: httpx2.AsyncClient, make_user: MakeUser) -> None:
    """No hosts, versions, routes, errors or people, though there are all of these to be shown."""
    user = await make_user("staff")
    await report(app)  # with what other tests made fail, which would be newer
    async with app.state.database.session() as session:
        failure = {"at": utc_now(), "process": f"{HOST}:{os.getpid()}", "method": "GET", "route": "/a/secret/route"}
        failure |= {"status": 500, "error": "LookupError", "request_id": "a-request"}
        await session.exec(insert(FailedAnswer), params=[failure])
        await session.commit()
    secrets = (f"{HOST}:", __version__, "/a/secret/route", "LookupError", "a-request")
    public = (await client.get("/status?range=1h")).text
    assert "Components" in public
    for one in (*secrets, user.email, str(os.getpid()), "/api/"):
        assert one not in public
    form = {"username": user.email, "password": PASSWORD}
    signed_in = await client.post("/admin/login", data=form, headers={"Sec-Fetch-Site": "same-origin"})
    private = (await client.get("/status?range=1h", headers={"Cookie": signed_in.headers["Set-Cookie"]})).text
    for one in secrets:
        assert one in private


@pytest.mark.slow
def test_a_process_reports_by_itself_and_takes_its_row_along(url: str) -> None:
    port = free_port()
    variables = {"DATABASE_URL": url, "PORT": str(port), "PROCESSES__REPORT_SECONDS": "0.2"}
    environment = os.environ | PATIENT | variables
    process = subprocess.Popen([sys.executable, "-m", "backend", "serve"], cwd=ROOT, env=environment)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}", process)
        deadline = time.monotonic() + 10
        while process.pid not in pids(url):
            assert time.monotonic() < deadline, "it should have said something long ago"
            time.sleep(0.05)
        process.terminate()
        process.wait(timeout=40)
    finally:
        process.kill()
        process.wait()
    assert process.pid not in pids(url)


def pids(url: str) -> list[int]:
    from sqlalchemy import create_engine

    from backend.core.db import sync_url

    engine = create_engine(sync_url(url))
    with engine.connect() as connection:
        found = list(connection.execute(select(col(ProcessReport.pid))).scalars())
    engine.dispose()
    return found
