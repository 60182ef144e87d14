"""Actions on more records than one transaction should hold: asked for in the console, done chunk by chunk."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import col, func, insert, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Principal
from backend.core.console_actions import ConsoleActed
from backend.core.errors import Conflict, Unavailable
from backend.core.models import utc_now
from backend.features.console_jobs import service, working
from backend.features.console_jobs.events import ConsoleJobEnded, ConsoleJobStarted
from backend.features.console_jobs.models import ConsoleJob
from backend.features.console_jobs.working import Worker
from backend.features.users.models import User, UserSession
from backend.testing import Console, MakeUser

MANY = 45
CHUNK = 10
FIRST = "bulk00000@example.com"


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than twenty records are many."""
    monkeypatch.setattr("admin.actions.AT_ONCE", 20)
    monkeypatch.setattr(working, "CHUNK", CHUNK)
    monkeypatch.setattr(working, "CHUNK_SECONDS", 60)  # chunks are as long on a busy machine
    monkeypatch.setattr(working, "PAUSE", 0.001)
    monkeypatch.setattr(working, "REFUSALS_KEPT", 5)


async def fill(session: AsyncSession, many: int = MANY) -> None:
    shared = {"password_hash": "!", "role": "user", "is_active": True, "full_name": "", "version": 1}
    shared |= {"created_at": utc_now(), "updated_at": utc_now()}
    rows = [shared | {"email": f"bulk{number:05}@example.com"} for number in range(many)]
    await session.exec(insert(User), params=rows)
    await session.commit()


@pytest.fixture
async def browser(console: Console, make_user: MakeUser, session: AsyncSession) -> httpx2.AsyncClient:
    """An administrator's, with many accounts."""
    admin = await make_user("admin", email="boss@example.com")
    await fill(session)
    return await console(admin.email)


@pytest.fixture
def worker(app: FastAPI) -> Worker:
    """A process's, which works when it is told to."""
    return Worker(app)


@pytest.fixture
def heard(app: FastAPI) -> Iterator[list[Any]]:
    """What is told of console actions and background actions meanwhile."""
    events: list[Any] = []

    async def note(_session: AsyncSession, event: Any) -> None:
        events.append(event)

    handlers = app.state.database.info["handlers"]
    kinds = (ConsoleActed, ConsoleJobStarted, ConsoleJobEnded)
    app.state.database.info["handlers"] = handlers | {kind: (*handlers.get(kind, ()), note) for kind in kinds}
    yield events
    app.state.database.info["handlers"] = handlers


async def ask(browser: httpx2.AsyncClient, query: str = "search=bulk", **fields: str) -> httpx2.Response:
    form = {"matching": "1", "query": query, **fields}
    return await browser.post("/admin/user/action/deactivate", data=form)


async def begun(browser: httpx2.AsyncClient, query: str = "search=bulk", **fields: str) -> str:
    """The path of a new background action's page."""
    answer = await ask(browser, query, confirmed="1", **fields)
    assert answer.status_code == 303, answer.text
    return httpx2.URL(answer.headers["Location"]).path


async def stored(session: AsyncSession) -> ConsoleJob:
    """The only job, as it is now."""
    session.expire_all()
    return (await session.exec(select(ConsoleJob))).one()


async def deactivated(session: AsyncSession) -> int:
    session.expire_all()
    gone = select(func.count()).select_from(User).where(~col(User.is_active))
    return (await session.exec(gone)).one()


async def test_the_page_that_asks_says_how_many_and_that_nobody_has_to_wait(browser: httpx2.AsyncClient) -> None:
    page = await ask(browser)
    assert page.status_code == 200
    assert "<h1>Deactivate 45 users?</h1>" in page.text
    assert "45 users. This runs in the background; you may leave the page." in page.text
    assert "and 25 more" in page.text
    assert 'name="pks"' not in page.text


async def test_it_runs_to_its_end_and_its_page_says_so(
    browser: httpx2.AsyncClient, worker: Worker, session: AsyncSession, heard: list[Any]
) -> None:
    path = await begun(browser)
    waiting = await browser.get(path)
    assert "This runs in the background; you may leave the page." in waiting.text
    assert "Waiting: 0 of 45" in waiting.text
    assert waiting.headers["Refresh"] == "3"
    assert await worker.turn()
    page = await browser.get(path)
    assert "Done: 45 of 45" in page.text
    assert "Refresh" not in page.headers
    assert 'href="http://localhost/admin/user/list?search=bulk"' in page.text
    assert await deactivated(session) == MANY
    assert not await worker.turn()

    acted = [event for event in heard if isinstance(event, ConsoleActed)]
    ids = [one for event in acted for one in event.ids]
    people = await session.exec(select(User.id).where(~col(User.is_active)).order_by(col(User.id)))
    assert ids == list(people)
    assert {(event.view, event.done) for event in acted} == {("user", "deactivate")}
    assert [type(event) for event in heard if event not in acted] == [ConsoleJobStarted, ConsoleJobEnded]


async def test_it_is_done_in_chunks_by_the_person_who_asked(
    browser: httpx2.AsyncClient, worker: Worker, session: AsyncSession
) -> None:
    path = await begun(browser)
    job_id = await worker.take()
    assert job_id is not None
    assert await worker.step(job_id)
    page = await browser.get(path)
    assert f"Running: {CHUNK} of 45, " in page.text
    assert re.search(rf'<progress [^>]*id="progress" max="{MANY}" value="{CHUNK}"', page.text)
    assert '<label class="form-label" for="progress">' in page.text
    assert await deactivated(session) == CHUNK
    still = await browser.get(f"{path}?still=1")
    assert "Refresh" not in still.headers


async def test_what_is_refused_is_told_with_its_reason_and_the_rest_is_done(
    console: Console, make_user: MakeUser, session: AsyncSession, worker: Worker
) -> None:
    admin = await make_user("admin", email="bulk-boss@example.com")
    await fill(session)
    browser = await console(admin.email)
    path = await begun(browser)
    await worker.turn()
    page = await browser.get(path)
    assert "Done: 46 of 46" in page.text
    assert f'admin/user/details/{admin.id}">User {admin.id}</a>: This is the last active administrator' in page.text
    job = await stored(session)
    assert (job.state, job.done, job.refused) == ("done", MANY, 1)
    assert await deactivated(session) == MANY


async def test_of_many_that_are_refused_the_first_are_told(
    app: FastAPI,
    browser: httpx2.AsyncClient,
    worker: Worker,
    session: AsyncSession,
    heard: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What one of them had written before it was refused is taken back, and nothing else."""

    async def every_other(_view: Any, session: AsyncSession, record: User, _caller: Principal) -> None:
        record.full_name = "touched"
        session.add(record)
        await session.flush()
        if int(record.email[4:9]) % 2:
            raise Conflict("odd " * 100)

    change_action(app, monkeypatch, every_other)
    path = await begun(browser)
    await worker.turn()
    job = await stored(session)
    assert (job.state, job.done, job.refused) == ("done", 23, 22)
    touched = (await session.exec(select(User.email).where(User.full_name == "touched"))).all()
    assert sorted(touched) == [f"bulk{number:05}@example.com" for number in range(0, MANY, 2)]
    assert sum(len(event.ids) for event in heard if isinstance(event, ConsoleActed)) == 23
    page = await browser.get(path)
    assert "Refused: the first 5 of 22" in page.text
    assert len(re.findall(r": odd ", page.text)) == 5


def change_action(app: FastAPI, monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    """Let *Deactivate* do something else."""
    actions = app.state.console_views["user"].actions
    monkeypatch.setitem(actions, "deactivate", replace(actions["deactivate"], run=run))


async def test_a_bug_ends_it_where_it_is_and_keeps_what_is_done(
    app: FastAPI, browser: httpx2.AsyncClient, worker: Worker, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails_once(_view: Any, _session: AsyncSession, record: User, _caller: Principal) -> None:
        record.is_active = False
        if record.email == "bulk00025@example.com":
            raise ZeroDivisionError

    change_action(app, monkeypatch, fails_once)
    path = await begun(browser)
    await worker.turn()
    job = await stored(session)
    assert (job.state, job.done) == ("failed", 25)
    assert await deactivated(session) == 25
    page = await browser.get(path)
    assert "Something went wrong on our side. It has been logged" in page.text
    assert not await worker.turn()


async def test_an_outage_is_waited_for_and_nothing_is_left_out(
    app: FastAPI, browser: httpx2.AsyncClient, worker: Worker, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = [True]

    async def while_it_is_away(_view: Any, _session: AsyncSession, record: User, _caller: Principal) -> None:
        if away and record.email == "bulk00025@example.com":
            away.clear()
            raise Unavailable
        record.is_active = False

    change_action(app, monkeypatch, while_it_is_away)
    await begun(browser)
    with pytest.raises(Unavailable):
        await worker.turn()
    assert await deactivated(session) == 2 * CHUNK
    assert await worker.turn()
    job = await stored(session)
    assert (job.state, job.done, job.refused) == ("done", MANY, 0)


async def test_who_may_not_do_it_any_more_does_not(
    browser: httpx2.AsyncClient, worker: Worker, session: AsyncSession, console: Console, make_user: MakeUser
) -> None:
    path = await begun(browser)
    other = await console((await make_user("admin")).email)
    job_id = await worker.take()
    assert job_id is not None
    await worker.step(job_id)
    await session.exec(update(User).where(col(User.email) == "boss@example.com").values(role="staff"))
    await session.commit()
    assert await worker.turn()
    page = await other.get(path)
    assert f"Failed: {CHUNK} of 45" in page.text
    assert working.NOT_ANY_MORE in page.text
    assert await deactivated(session) == CHUNK


async def test_the_account_of_who_asked_has_to_be_active(
    browser: httpx2.AsyncClient, worker: Worker, session: AsyncSession
) -> None:
    await begun(browser)
    await session.exec(update(User).where(col(User.email) == "boss@example.com").values(is_active=False))
    await session.commit()
    assert await worker.turn()
    job = await stored(session)
    assert (job.state, job.reason, job.done) == ("failed", working.GONE, 0)


async def test_cancelled_it_stops_and_what_is_done_stays_done(
    browser: httpx2.AsyncClient, worker: Worker, session: AsyncSession
) -> None:
    path = await begun(browser)
    job_id = await worker.take()
    assert job_id is not None
    await worker.step(job_id)
    assert "Cancel what is left" in (await browser.get(path)).text
    assert (await browser.post(path)).status_code == 303
    assert not await worker.step(job_id)
    assert not await worker.turn()
    page = await browser.get(path)
    assert f"Cancelled: {CHUNK} of 45" in page.text
    assert "Cancel what is left" not in page.text
    assert await deactivated(session) == CHUNK
    again = await browser.post(path)
    assert again.status_code == 409
    assert "This is over already" in again.text


async def test_cancelling_is_nothing_that_another_site_can_do(browser: httpx2.AsyncClient) -> None:
    path = await begun(browser)
    assert (await browser.post(path, headers={"Sec-Fetch-Site": "cross-site"})).status_code == 403


async def test_two_processes_do_not_work_on_one(
    app: FastAPI, browser: httpx2.AsyncClient, worker: Worker, session: AsyncSession
) -> None:
    """Until the one that has it says nothing for so long that it must be gone; then it is not its any more."""
    await begun(browser)
    other = Worker(app)
    job_id = await worker.take()
    assert job_id is not None
    assert await other.take() is None
    condition = service.free("another", timedelta(seconds=60))
    assert not await service.take(session, job_id, condition, "another")
    await session.commit()
    assert await worker.step(job_id)
    await session.exec(update(ConsoleJob).values(heartbeat_at=utc_now() - timedelta(minutes=2)))
    await session.commit()
    assert await other.take() == job_id
    assert not await worker.step(job_id)
    assert await deactivated(session) == CHUNK
    while await other.step(job_id):
        pass
    assert (await stored(session)).done == MANY
    assert await deactivated(session) == MANY


async def test_given_back_it_goes_on_elsewhere_at_once(
    app: FastAPI, browser: httpx2.AsyncClient, worker: Worker, session: AsyncSession
) -> None:
    await begun(browser)
    job_id = await worker.take()
    assert job_id is not None
    await worker.step(job_id)
    await worker.give_back(job_id)
    assert await Worker(app).turn()
    assert (await stored(session)).done == MANY


async def test_what_is_made_meanwhile_is_not_meant(
    browser: httpx2.AsyncClient, worker: Worker, session: AsyncSession, make_user: MakeUser
) -> None:
    asked = await ask(browser)
    [up_to] = re.findall(r'name="up_to" value="(\d+)"', asked.text)
    await make_user("user", email="bulk-between@example.com")
    await begun(browser, up_to=up_to)
    await make_user("user", email="bulk-after@example.com")
    await worker.turn()
    job = await stored(session)
    assert (job.total, job.done) == (MANY, MANY)
    assert await deactivated(session) == MANY


async def test_what_does_not_match_any_more_when_its_turn_comes_is_left_alone(
    browser: httpx2.AsyncClient, worker: Worker, session: AsyncSession
) -> None:
    path = await begun(browser, "search=bulk&f_is_active=yes")
    await session.exec(update(User).where(col(User.email) == FIRST).values(is_active=False))
    await session.commit()
    await worker.turn()
    page = await browser.get(path)
    assert "Done: 44 of 45" in page.text
    assert "1: they did not match any more when their turn came" in page.text


async def test_asked_twice_it_is_begun_once(browser: httpx2.AsyncClient, worker: Worker, session: AsyncSession) -> None:
    path = await begun(browser)
    assert await begun(browser) == path
    await worker.turn()
    assert (await stored(session)).state == "done"


async def test_one_s_own_are_for_oneself_and_administrators(
    browser: httpx2.AsyncClient, console: Console, make_user: MakeUser
) -> None:
    path = await begun(browser)
    key = path.rsplit("/", 1)[1]
    staff, admin = await console((await make_user("staff")).email), await console((await make_user("admin")).email)
    for nobody in (staff, await console("", None)):
        assert (await nobody.get(path)).status_code in (302, 303, 404)
        assert (await nobody.post(path)).status_code in (302, 303, 404)
    assert "Deactivate users" not in (await staff.get("/admin/console-job/list")).text
    assert (await staff.get(f"/admin/console-job/details/{key}")).status_code == 404
    listed = await admin.get("/admin/console-job/list")
    assert re.search(rf'href="http://localhost{path}">Deactivate users</a>', listed.text)
    assert (await admin.get(path)).status_code == 200
    assert (await admin.get(f"/admin/console-job/details/{key}")).status_code == 200
    assert (await admin.post(path)).status_code == 303
    assert "Cancelled" in (await browser.get(path)).text


@pytest.mark.parametrize("key", ["0", "7x", "99999999999", "2147483647"])
async def test_what_is_none_is_not_found(browser: httpx2.AsyncClient, key: str) -> None:
    assert (await browser.get(f"/admin/background-actions/{key}")).status_code == 404


async def test_what_is_dangerous_asks_for_the_password_first(
    browser: httpx2.AsyncClient, session: AsyncSession, app: FastAPI
) -> None:
    await session.exec(update(UserSession).values(created_at=utc_now() - timedelta(hours=1)))
    await session.commit()
    app.state.principals.forget_all()
    form = {"matching": "1", "query": "search=bulk"}
    asked = await browser.post("/admin/user/action/delete", data=form)
    assert "Your password" in asked.text
    refused = await browser.post("/admin/user/action/delete", data=form | {"confirmed": "1"})
    assert refused.status_code == 403
    assert (await session.exec(select(func.count()).select_from(ConsoleJob))).one() == 0


async def test_what_would_go_along_is_counted_by_the_query(
    browser: httpx2.AsyncClient, session: AsyncSession, statements: Any
) -> None:
    [key] = (await session.exec(select(User.id).where(User.email == FIRST))).all()
    soon = utc_now() + timedelta(hours=1)
    session.add(UserSession(sid="x", user_id=key or 0, kind="token", expires_at=soon))
    await session.commit()
    with statements() as seen:
        asked = await browser.post("/admin/user/action/delete", data={"matching": "1", "query": "search=bulk"})
    assert "<li>Sessions: 1 deleted as well</li>" in asked.text
    assert max(map(len, seen)) < 5000


async def test_mails_that_wait_hold_it_up(app: FastAPI, worker: Worker, browser: httpx2.AsyncClient) -> None:
    """What does not fit into the queue would be lost."""
    await begun(browser)
    job_id = await worker.take()
    assert job_id is not None
    mailer = app.state.mailer
    before = mailer._under_way
    try:
        mailer._under_way = mailer.settings.mail.queue_size - 9
        await worker.step(job_id)
        assert "Running: 5 of 45" in (await browser.get(f"/admin/background-actions/{job_id}")).text
        mailer._under_way = mailer.settings.mail.queue_size
        assert await worker.step(job_id)
        assert "Running: 5 of 45" in (await browser.get(f"/admin/background-actions/{job_id}")).text
    finally:
        mailer._under_way = before


async def test_those_that_ended_long_ago_are_forgotten(
    browser: httpx2.AsyncClient, worker: Worker, session: AsyncSession
) -> None:
    path = await begun(browser)
    await worker.turn()
    await service.forget(session, days=90)
    assert (await stored(session)).state == "done"
    await session.exec(update(ConsoleJob).values(finished_at=utc_now() - timedelta(days=91)))
    await service.forget(session, days=90)
    await session.commit()
    assert (await browser.get(path)).status_code == 404
