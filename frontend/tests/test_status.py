"""What features contribute to the status page, and who sees it."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import httpx2
import pytest
from alembic import command
from fastapi import FastAPI

from backend.core.charts import ceiling, drawn, path
from backend.core.feature import Feature, Registry
from backend.core.health import Health
from backend.core.status import (
    UNKNOWN,
    Block,
    Chart,
    Day,
    Histories,
    History,
    Incident,
    Incidents,
    Line,
    Panel,
    Stat,
    Stats,
    Table,
    Update,
    Window,
    milliseconds,
    number,
    share,
)
from backend.features import FEATURES
from backend.features.users.models import User
from backend.testing import PASSWORD, PASSWORD_HASH, OwnPostgreSQL, new_client, run_alembic
from frontend.status import shown_by

MakeApp = Callable[..., FastAPI]

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
HOURS = [NOON + timedelta(hours=hour) for hour in range(4)]
DAYS = [Day(date(2026, 1, day), None if day == 1 else 0.9 if day == 2 else 1.0) for day in range(1, 31)]
BLOCKS: Sequence[Block] = (
    Stats([Stat(label="Requests", value="<b>12</b>", note="a note", tone="bad")]),
    Chart(
        caption="Requests each second", times=HOURS, lines=[Line("all", [1, None, 3, 4]), Line("failed", [0, 0, 0, 0])]
    ),
    Chart(caption="Nothing yet", times=[], lines=[]),
    Table(caption="Slowest", columns=("Route", "p99"), rows=[("/a", "12 ms")], empty="None."),
    Table(caption="Busiest", columns=("Route", "requests"), rows=[], empty="Nobody asked."),
    Histories([History(component="database", days=DAYS, uptimes={"24h": 1.0, "90d": None}, latencies=[1, 2, None, 3])]),
    Incidents(
        [
            Incident(
                title="Away",
                components=["database"],
                status="resolved",
                opened_at=NOON,
                resolved_at=NOON + timedelta(hours=1),
                updates=[Update(at=NOON, status="investigating", text="We are looking")],
            )
        ],
        empty="Nothing has happened.",
    ),
    Incidents([], empty="Nothing has happened."),
)


def with_panels(app: FastAPI, *panels: Panel) -> FastAPI:
    """The app, with these panels and no others."""
    others = tuple(replace(one, status=()) for one in app.state.registry.features)
    app.state.registry = Registry(features=(*others, Feature(name="shown", summary="", status=panels)))
    return app


def panel(*blocks: Block, title: str = "Mine", permission: str = "") -> Panel:
    async def read(_app: FastAPI, _window: Window) -> Sequence[Block]:
        return blocks

    return Panel(title=title, read=read, permission=permission)


async def shown(app: FastAPI, query: str = "") -> str:
    async with new_client(app) as client:
        page = await client.get(f"/status{query}")
    assert page.status_code == 200
    return page.text


async def test_every_kind_of_block_is_drawn(make_app: MakeApp) -> None:
    text = await shown(with_panels(make_app(), panel(*BLOCKS)))
    for part in (
        "&lt;b&gt;12&lt;/b&gt;",
        'class="bad"',
        "Requests each second: all 4, failed 0",
        "Nothing has been measured in this time.",
        '<th scope="row">/a</th>',
        "Nobody asked.",
        "<h3>Database</h3>",
        "the last 30 days: 1 with an outage",
        "2026-01-02: 90 %",
        "2026-01-01: no data",
        "We are looking",
        "Nothing has happened.",
    ):
        assert part in text
    assert text.count('class="unknown"') == 1
    assert not re.search(r"<script(?! src=)|\sstyle=", text)


async def test_what_fails_or_takes_too_long_says_so_and_the_rest_is_there(make_app: MakeApp) -> None:
    async def fails(_app: FastAPI, _window: Window) -> Sequence[Block]:
        raise LookupError("secret")

    async def hangs(_app: FastAPI, _window: Window) -> Sequence[Block]:
        await asyncio.sleep(60)
        return ()

    broken = panel(*BLOCKS), Panel(title="Broken", read=fails), Panel(title="Slow", read=hangs)
    text = await shown(with_panels(make_app(), *broken))
    assert text.count("Not available at the moment.") == 2
    assert "We are looking" in text
    assert "secret" not in text


async def test_the_range_is_handed_on_and_bad_ones_are_refused(make_app: MakeApp) -> None:
    seen: list[Window] = []

    async def read(_app: FastAPI, window: Window) -> Sequence[Block]:
        seen.append(window)
        return ()

    app = with_panels(make_app(), Panel(title="Mine", read=read))
    await shown(app)
    await shown(app, "?range=7d")
    assert [(one.name, one.until - one.since) for one in seen] == [
        ("24h", timedelta(days=1)),
        ("7d", timedelta(days=7)),
    ]
    async with new_client(app) as client:
        assert (await client.get("/status?range=2h")).status_code == 422


async def test_what_everybody_sees_is_read_once_for_all_who_come_meanwhile(make_app: MakeApp) -> None:
    read = 0

    async def count(_app: FastAPI, _window: Window) -> Sequence[Block]:
        nonlocal read
        read += 1
        await asyncio.sleep(0.01)
        return BLOCKS

    app = with_panels(make_app(), Panel(title="Mine", read=count))
    await asyncio.gather(*(shown(app) for _ in range(5)))
    assert read == 1


async def test_while_the_database_cannot_be_asked_the_last_picture_stays(make_app: MakeApp) -> None:
    app, mine, window = make_app(), [panel(*BLOCKS)], Window("24h", NOON, NOON)
    keeper = shown_by(app)
    assert [one.blocks for one in await keeper.sections(mine, window, ask=False)] == [None]
    assert [one.blocks for one in await keeper.sections(mine, window, ask=True)] == [BLOCKS]
    assert [one.blocks for one in await keeper.sections(mine, window, ask=False)] == [BLOCKS]


async def test_those_who_watch_are_bounded(make_app: MakeApp) -> None:
    app = make_app()
    app.state.status_watchers = 500
    async with new_client(app) as client:
        assert (await client.get("/status/live?limit=1")).status_code == 503
        app.state.status_watchers = 0
        assert (await client.get("/status/live?limit=1")).status_code == 200
    assert app.state.status_watchers == 0


@pytest.mark.parametrize(("role", "sees"), [("user", False), ("staff", True), ("admin", True)])
async def test_what_needs_a_permission_is_for_those_who_have_it(
    client: httpx2.AsyncClient, make_user: Callable[..., object], role: str, sees: bool
) -> None:
    if "processes" not in FEATURES:
        pytest.skip("nothing is shown to staff")

    assert "Processes that run" not in (await client.get("/status")).text
    user = await make_user(role)  # type: ignore[misc]
    form = {"username": user.email, "password": PASSWORD}
    signed_in = await client.post("/admin/login", data=form, headers={"Sec-Fetch-Site": "same-origin"})
    text = (await client.get("/status", headers={"Cookie": signed_in.headers.get("Set-Cookie", "")})).text
    assert ("Processes that run" in text) is sees
    assert ("Staff see more" in text) is not sees


async def test_an_open_incident_is_the_verdict_though_all_components_answer(make_app: MakeApp) -> None:
    opened = Incident(
        title="Mail is <late>", components=[], status="Investigating", opened_at=NOON, resolved_at=None, updates=[]
    )
    told = with_panels(make_app(), panel(Incidents([opened], empty="")))
    text = await shown(told)
    assert "Some systems are affected" in text
    assert "Mail is &lt;late&gt;. What is known about it is below." in text
    assert "<title>Incident \N{EN DASH} Status" in text
    assert "Everything works" not in text
    over = with_panels(make_app(), panel(Incidents([replace(opened, resolved_at=NOON)], empty="")))
    assert "Everything works" in await shown(over)
    degraded = with_panels(make_app(REDIS_URL="redis://127.0.0.1:9"), panel(Incidents([opened], empty="")))
    assert "Works, with limits" in await shown(degraded)


@pytest.mark.slow
async def test_a_database_that_freezes_meanwhile_holds_nobody_up_for_longer_than_said(
    make_app: MakeApp, own_postgresql: OwnPostgreSQL
) -> None:
    run_alembic(own_postgresql.url, lambda alembic: command.upgrade(alembic, "head"))
    app = with_panels(make_app(DATABASE_URL=own_postgresql.url), panel(*BLOCKS, permission="secret:read"))
    async with app.state.database.session() as session:
        session.add(User(email="admin@example.com", role="admin", password_hash=PASSWORD_HASH))
        await session.commit()
    async with new_client(app, headers={"Sec-Fetch-Site": "same-origin"}) as client:
        form = {"username": "admin@example.com", "password": PASSWORD}
        await client.post("/admin/login", data=form)
        assert "Staff see more" not in (await client.get("/status")).text
        app.state.principals.forget_all()
        app.state.health = Health(app, {})  # as it is known for a second: nothing is down
        with own_postgresql.frozen():
            began = time.monotonic()
            page = await client.get("/status")
            took = time.monotonic() - began
    assert page.status_code == 200
    assert "Staff see more" in page.text, "who looks is not known"
    assert 2.5 < took < 4.5


async def test_an_open_page_is_told_when_to_look_again(make_app: MakeApp) -> None:
    async with new_client(make_app()) as client:
        answer = await client.get("/status/live?limit=1")
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    assert "event: look" in answer.text


def test_a_curve_is_lifted_where_nothing_is_known() -> None:
    assert path([0, 10, None, 5], 10, 300, 100) == "M0.0 100.0L100.0 0.0M300.0 50.0h.01"
    assert path([], 10, 300, 100) == ""


@pytest.mark.parametrize(("most", "top"), [(0, 1), (1, 1), (1.2, 2), (23, 25), (26, 50), (99, 100), (0.003, 0.005)])
def test_an_axis_ends_at_a_round_number(most: float, top: float) -> None:
    assert ceiling(most) == pytest.approx(top)


def test_an_empty_chart_has_no_ends() -> None:
    drawing = drawn(Chart(caption="Nothing", times=[], lines=[Line("all", [])]))
    assert (drawing.first, drawing.curves[0].d) == (None, "")


def test_numbers_are_written_for_people() -> None:
    assert [share(one) for one in (1.0, 0.99999, 0.9998, 0.5, None)] == ["100 %", "99.99 %", "99.98 %", "50 %", UNKNOWN]
    assert [milliseconds(one) for one in (0.0123, 1.5, None)] == ["12.3 ms", "1.5 s", UNKNOWN]
    assert [number(one) for one in (12345.6, 3, 0.25, 99.7, 99.97)] == ["12,346", "3", "0.25", "99.7", "100"]
    assert [milliseconds(one) for one in (0.9994, 0.9996, 1000)] == ["999 ms", "1 s", "1,000 s"]
