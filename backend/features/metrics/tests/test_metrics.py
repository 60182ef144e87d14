"""What is counted, under which bounded labels, by one process and by several, and who may read it."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from itertools import product
from pathlib import Path

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import StreamingResponse
from prometheus_client import Histogram
from prometheus_client.parser import text_string_to_metric_families as parse
from prometheus_client.utils import floatToGoString
from pydantic import ValidationError
from sqlalchemy import literal
from sqlmodel import select
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router

from backend.core.config import UnsafeSettings
from backend.core.figures import Figure
from backend.core.observing import KNOWN_METHODS
from backend.core.read_session import ReadSession
from backend.features import FEATURES
from backend.features.metrics.measure import SECONDS, metrics_of
from backend.testing import BASE_URL, new_client, running_server

MakeApp = Callable[..., FastAPI]
Labels = frozenset[tuple[str, str]]
SHEDDING = "load_shedding" in FEATURES
TOKEN = "a-token-of-twenty-four-characters"


def samples(text: str, name: str) -> dict[Labels, float]:
    """Labels → value of each series with that name."""
    found = (one for family in parse(text) for one in family.samples)
    return {frozenset(one.labels.items()): one.value for one in found if one.name == name}


def value(text: str, name: str, **labels: str) -> float:
    return samples(text, name).get(frozenset(labels.items()), 0)


def exposed(app: FastAPI) -> str:
    metrics_of(app).publish()  # as the route does
    return metrics_of(app).exposition().decode()


def routes_seen(app: FastAPI) -> set[str]:
    return {dict(labels)["route"] for labels in samples(exposed(app), "http_requests_total")}


# --- labels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/openapi.json", "/openapi.json"),
        ("/no/such/page", "unmatched"),
        ("/openapi.json/", "unmatched"),  # a redirect
        ("/admin/login", "/admin"),
        ("/admin/no/such/page", "/admin"),
        ("/administrator", "unmatched"),
        ("/static/no-such-file", "/static"),
        ("/api/v1/boxes/7", "/api/v1/boxes/{number}"),
        ("/api/v2/boxes/8", "/api/v2/boxes/{number}"),
        ("/inner/mount/deep/er", "/inner/mount"),
    ],
)
@pytest.mark.parametrize("root_path", ["", "/behind"])
async def test_a_request_counts_under_its_routes_template(
    make_app: MakeApp, path: str, route: str, root_path: str
) -> None:
    app, boxes = make_app(), APIRouter()

    @boxes.get("/boxes/{number:int}")
    async def box(number: int) -> int:
        return number

    for prefix in ("/api/v1", "/api/v2"):  # one route twice, as v2 serves v1's
        app.include_router(boxes, prefix=prefix)
    app.mount("/inner/mount", Router([Mount("/deep", Router([Route("/er", PlainTextResponse("here"))]))]))
    transport = httpx2.ASGITransport(app=app, root_path=root_path)
    async with httpx2.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        await client.get(f"{root_path}{path}")
    assert routes_seen(app) == {route}


async def test_made_up_paths_and_methods_make_no_series(make_app: MakeApp) -> None:
    app = make_app()
    async with new_client(app) as client:
        for number in range(50):
            await client.get(f"/made/up/{number}")
            await client.request(f"VERB{number}", f"/openapi.json?{number}")
    seen = [dict(labels) for labels in samples(exposed(app), "http_requests_total")]
    assert [(one["method"], one["route"], one["status"]) for one in seen] == [
        ("GET", "unmatched", "404"),
        ("other", "/openapi.json", "405"),
    ]
    assert "other" not in KNOWN_METHODS


@pytest.mark.slow
async def test_whatever_callers_send_the_number_of_series_stays_as_it_is(make_app: MakeApp) -> None:
    """Thousands of paths, methods, cache tags and addresses: the second half adds nothing to the first."""
    app = make_app(DATABASE_URL="sqlite://", FEATURES_OFF=",".join({"rate_limits", "lockout"} & {*FEATURES}))
    counts = []
    async with app.router.lifespan_context(app), new_client(app) as client:
        for turn in range(2):
            for number in range(turn * 1000, turn * 1000 + 1000):
                await client.get(f"/made/up/{number}")
                await client.request(f"VERB{number}", f"/api/v1/store/items/{number}")
                await client.get(f"/api/v1/store/items?q=word{number}", headers={"X-Request-ID": f"id-{number}"})
                if number % 200 == 0:  # hashes a password each time
                    form = {"username": f"ada{number}@example.com", "password": "wrong"}
                    await client.post("/api/v1/auth/token", data=form)
                    await client.delete(f"/api/v1/cache?tag=tag{number}")
            counts.append(sum(len(family.samples) for family in parse(exposed(app))))
    assert counts[0] == counts[1] < 1500
    text = exposed(app)
    assert "example.com" not in text
    assert "made/up" not in text
    assert "tag" not in {name for family in parse(text) for one in family.samples for name in one.labels}


async def test_two_apps_of_one_process_do_not_share_their_figures(make_app: MakeApp) -> None:
    first, second = make_app(), make_app()
    async with new_client(first) as client:
        await client.get("/openapi.json")
    assert (routes_seen(first), routes_seen(second)) == ({"/openapi.json"}, set())


# --- what is counted -----------------------------------------------------------------------------------------------


async def test_refusals_of_other_middleware_are_counted(make_app: MakeApp) -> None:
    pytest.importorskip("backend.features.request_limits")
    app = make_app(REQUEST_LIMITS__BODY_BYTES="10")
    async with new_client(app) as client:
        assert (await client.post("/openapi.json", content=b"x" * 11)).status_code == 413
    assert value(exposed(app), "http_requests_total", method="POST", route="unmatched", status="413") == 1


async def test_bugs_are_counted(make_app: MakeApp) -> None:
    app = make_app()

    @app.get("/bug")
    async def bug() -> None:
        raise RuntimeError

    async with new_client(app) as client:
        assert (await client.get("/bug")).status_code == 500
    text = exposed(app)
    assert value(text, "http_requests_total", method="GET", route="/bug", status="500") == 1
    assert value(text, "http_requests_in_progress") == 0


async def test_durations_and_what_is_in_progress_are_measured(make_app: MakeApp) -> None:
    app, begun, go_on = make_app(), asyncio.Event(), asyncio.Event()

    @app.get("/slow")
    async def slow() -> None:
        begun.set()
        await go_on.wait()

    async with new_client(app) as client:
        request = asyncio.create_task(client.get("/slow"))
        await begun.wait()
        started = time.perf_counter()
        assert value(exposed(app), "http_requests_in_progress") == 1
        assert samples(exposed(app), "http_requests_total") == {}
        await asyncio.sleep(0.05)
        waited = time.perf_counter() - started
        go_on.set()
        await request
    text = exposed(app)
    assert value(text, "http_requests_in_progress") == 0
    assert value(text, "http_request_duration_seconds_count", method="GET", route="/slow") == 1
    assert waited <= value(text, "http_request_duration_seconds_sum", method="GET", route="/slow") < waited + 5


async def test_time_spent_in_the_database_is_measured_of_requests_that_ask_it(make_app: MakeApp) -> None:
    app = make_app(DATABASE_URL="sqlite://")

    @app.get("/asks")
    async def asks(session: ReadSession) -> int:
        return int((await session.exec(select(literal(1)))).one())

    @app.get("/does-not")
    async def does_not() -> int:
        return 1

    async with new_client(app) as client:
        for path in ("/asks", "/asks", "/does-not"):
            assert (await client.get(path)).status_code == 200
    text = exposed(app)
    assert samples(text, "http_request_database_seconds_count") == {
        frozenset({("method", "GET"), ("route", "/asks")}): 2
    }
    within = value(text, "http_request_database_seconds_sum", method="GET", route="/asks")
    assert 0 < within < value(text, "http_request_duration_seconds_sum", method="GET", route="/asks")


async def test_what_is_counted_is_what_the_library_would_count(make_app: MakeApp) -> None:
    """Bounds belong to their buckets, what is beyond the last is in `+Inf`, and what was added stays."""
    metrics = metrics_of(make_app())
    by_library = Histogram("by_library", "One by one.", registry=metrics.registry, buckets=SECONDS)
    for _ in range(2):
        for seconds in (0, 0.001, 0.0011, *SECONDS, 11, 300.5):
            metrics.seconds.observe(("GET", "/here"), seconds)
            by_library.observe(seconds)
        metrics.publish()
        metrics.publish()
    text = metrics.exposition().decode()
    labels = {"method": "GET", "route": "/here"}
    for le in (*map(floatToGoString, SECONDS), "+Inf"):
        mine = value(text, "http_request_duration_seconds_bucket", **labels, le=le)
        assert mine == value(text, "by_library_bucket", le=le) > 0
    for part in ("sum", "count"):
        mine = value(text, f"http_request_duration_seconds_{part}", **labels)
        assert mine == pytest.approx(value(text, f"by_library_{part}"))


async def test_a_stream_of_events_counts_once_it_has_begun(make_app: MakeApp) -> None:
    app, seen = make_app(), []

    @app.get("/events")
    async def events(request: Request) -> StreamingResponse:
        async def ticks() -> AsyncIterator[str]:
            seen.append(exposed(request.app))
            yield "data: 1\n\n"

        return StreamingResponse(ticks(), media_type="text/event-stream")

    async with new_client(app) as client:
        await client.get("/events")
    for text in (*seen, exposed(app)):
        assert value(text, "http_requests_in_progress") == 0
        assert value(text, "http_requests_total", method="GET", route="/events", status="200") == 1
    assert len(seen) == 1


async def test_figures_of_other_parts_are_exported(make_app: MakeApp) -> None:
    app = make_app()
    breaker = await app.state.breakers.get("mail", threshold=1)
    app.state.figures.all += (
        Figure(name="sheep", help="Counted.", kind="counter", read=lambda app: app.state.sheep),
        Figure(name="wool", help="In kg.", labels=("colour",), read=lambda _: {("black",): 1.5}),
    )
    text = ""
    for app.state.sheep in (2, 5):
        text = (await answer(app, address="127.0.0.1")).text
        assert value(text, "sheep_total") == app.state.sheep
    assert value(text, "wool", colour="black") == 1.5
    assert samples(text, "circuit_state")[frozenset({("name", "mail"), ("state", breaker.state)})] == 1


# --- who may read it -----------------------------------------------------------------------------------------------


async def answer(app: FastAPI, *, address: str | None, authorization: str = "") -> httpx2.Response:
    transport = httpx2.ASGITransport(app=app, client=(address, 1) if address else None)  # type: ignore[arg-type]
    async with httpx2.AsyncClient(transport=transport, base_url=BASE_URL) as client:
        return await client.get("/metrics", headers=[(b"authorization", authorization.encode("latin-1"))])


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
async def test_the_own_machine_may_read_it(make_app: MakeApp, address: str) -> None:
    reply = await answer(make_app(), address=address)
    assert (reply.status_code, reply.headers["Cache-Control"]) == (200, "no-store")
    assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert value(reply.text, "http_requests_in_progress") == 1
    assert ("environment", "development") in next(iter(samples(reply.text, "app_info")))
    assert samples(reply.text, "process_cpu_seconds_total")


@pytest.mark.parametrize("token", ["", TOKEN])
async def test_strangers_may_not(make_app: MakeApp, token: str) -> None:
    app = make_app(METRICS__TOKEN=TOKEN)
    shown = ("", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, "Bearer \xe9")
    for address, authorization in product(("203.0.113.7", "2001:db8::7", "testclient", "", None), shown):
        reply = await answer(app, address=address, authorization=authorization)
        assert reply.status_code == 403, (address, authorization)
        assert reply.json()["error"]["code"] == "forbidden"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_the_token_opens_it_from_anywhere(make_app: MakeApp, scheme: str) -> None:
    app = make_app(METRICS__TOKEN=TOKEN, METRICS__ALLOWED="10.0.0.0/8")
    assert (await answer(app, address="203.0.113.7", authorization=f"{scheme} {TOKEN}")).status_code == 200
    assert (await answer(app, address="10.1.2.3")).status_code == 200
    assert (await answer(app, address="127.0.0.1")).status_code == 403


@pytest.mark.slow
def test_a_caller_through_a_proxy_needs_the_token_whatever_address_it_claims() -> None:
    with running_server(DATABASE_URL="sqlite://", METRICS__TOKEN=TOKEN) as url:
        assert httpx2.get(f"{url}/metrics").status_code == 200
        for claimed in ("203.0.113.7", "127.0.0.1", "127.0.0.1, 10.1.2.3"):
            proxied = {"X-Forwarded-For": claimed}
            assert httpx2.get(f"{url}/metrics", headers=proxied).status_code == 403
            proxied["Authorization"] = f"Bearer {TOKEN}"
            assert httpx2.get(f"{url}/metrics", headers=proxied).status_code == 200


@pytest.mark.parametrize(
    "change", [{"METRICS__ALLOWED": "0.0.0.0/0"}, {"METRICS__ALLOWED": "10.0.0.0/8,::/0"}, {"METRICS__TOKEN": "short"}]
)
def test_production_refuses_to_open_it_to_the_world(make_app: MakeApp, change: dict[str, str]) -> None:
    safe = {
        "ENVIRONMENT": "production",
        "SECRET_KEY": "s" * 32,
        "TRUSTED_HOSTS__ALLOWED": "example.com",
        "API__PUBLIC_URL": "https://example.com",
        "MAIL__BACKEND": "smtp",
    }
    assert make_app(**safe, METRICS__TOKEN=TOKEN)
    with pytest.raises(UnsafeSettings, match=next(iter(change))) as refusal:
        make_app(**safe | change)
    assert len(refusal.value.offences) == 1


@pytest.mark.parametrize("network", ["localhost", "10.0.0.1/8"])
def test_what_is_no_network_is_refused(make_app: MakeApp, network: str) -> None:
    with pytest.raises(ValidationError, match="allowed"):
        make_app(METRICS__ALLOWED=network)


# --- several processes ---------------------------------------------------------------------------------------------


def workers(folder: Path) -> dict[int, Path]:
    return {int(file.stem.rpartition("_")[2]): file for file in folder.glob("*/gauge_livesum_*.db")}


def total(url: str, route: str) -> float:
    found = samples(httpx2.get(f"{url}/metrics").text, "http_requests_total")
    return sum(count for labels, count in found.items() if ("route", route) in labels)


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90  # uvicorn misses a worker that ends while it asks whether it lives for 30 of them
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.slow
def test_any_of_several_processes_answers_for_all_even_for_killed_ones(tmp_path: Path) -> None:
    count, path = 200, "/api/v1/users/me"  # nothing else asks for it
    with running_server(DATABASE_URL="sqlite://", SERVER__WORKERS="2", TMPDIR=str(tmp_path)) as url:
        eventually(lambda: len(workers(tmp_path)) == 2)
        with httpx2.Client(limits=httpx2.Limits(max_keepalive_connections=0)) as client:  # so that both get some
            assert {client.get(f"{url}{path}").status_code for _ in range(count)} == {401}
        eventually(lambda: total(url, path) == count)  # each says so once a second
        counters = list(tmp_path.glob("*/counter_*.db"))
        assert len([file for file in counters if path.encode() in file.read_bytes()]) == 2
        assert {total(url, path) for _ in range(20)} == {count}

        text = httpx2.get(f"{url}/metrics").text
        assert len(samples(text, "process_resident_memory_bytes")) == len(samples(text, "app_info")) == 1
        before = value(text, "process_cpu_seconds_total"), value(text, "process_start_time_seconds")
        victim = next(iter(workers(tmp_path)))
        os.kill(victim, signal.SIGKILL)
        eventually(lambda: len(workers(tmp_path).keys() - {victim}) == 2)  # the server starts another one
        text = httpx2.get(f"{url}/metrics").text
        assert total(url, path) == count
        assert value(text, "http_requests_in_progress") == 1  # this one
        assert victim not in workers(tmp_path)
        assert not list(tmp_path.glob(f"*/gauge_live*_{victim}.db"))
        # What other parts measure: written by each process, and one figure for all of them.
        pages = (httpx2.get(f"{url}/metrics").text for _ in range(10))
        assert {len(samples(page, "event_loop_lag_seconds")) for page in pages} == {int(SHEDDING)}
        after = value(text, "process_cpu_seconds_total"), value(text, "process_start_time_seconds")
        assert after[0] > before[0]
        assert after[1] > before[1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_process_that_is_told_to_end_loses_no_counts(tmp_path: Path) -> None:
    count, path = 50, "/api/v1/users/me"
    variables = {"SERVER__WORKERS": "2", "SERVER__DRAIN_SECONDS": "0", "TMPDIR": str(tmp_path)}
    with running_server(DATABASE_URL="sqlite://", **variables) as url:
        eventually(lambda: len(workers(tmp_path)) == 2)
        before = set(workers(tmp_path))
        with httpx2.Client(limits=httpx2.Limits(max_keepalive_connections=0)) as client:
            for _ in range(count):
                client.get(f"{url}{path}")
        for process in before:  # at once: the second in which they were counted is not over
            os.kill(process, signal.SIGTERM)
        eventually(lambda: len(workers(tmp_path).keys() - before) == 2)
        assert total(url, path) == count
