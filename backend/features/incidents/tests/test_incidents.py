"""Incidents and the status, through the API: what everybody may read, and what staff write."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.models import utc_now
from backend.features import FEATURES
from backend.features.incidents.models import DAY, HOUR, Incident, IncidentUpdate, Rollup
from backend.testing import MakeUser, new_client

PATH = "/api/v2/incidents"
PAYMENTS = {"title": "Payments are slow", "components": ["redis"], "text": "We are looking into it."}


async def opened(client: httpx2.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post(PATH, json=PAYMENTS | fields)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    assert answer.headers["Location"] == f"{PATH}/{made['id']}"
    return made


async def test_staff_open_an_incident_and_everybody_reads_it(
    as_staff: httpx2.AsyncClient, client: httpx2.AsyncClient, session: AsyncSession
) -> None:
    made = await opened(as_staff)
    assert (made["status"], made["automatic"], made["resolved_at"]) == ("investigating", False, None)
    read = (await client.get(f"{PATH}/{made['id']}")).json()
    assert read == made
    assert [one["text"] for one in read["updates"]] == ["We are looking into it."]
    assert set(read["updates"][0]) == {"id", "status", "text", "at"}, "not who wrote it"
    [update] = (await session.exec(select(IncidentUpdate))).all()
    assert update.by_id is not None
    assert (await client.get(f"{PATH}/{made['id'] + 1}")).status_code == 404


async def test_updates_tell_people_more_and_close_it_and_open_it_again(
    as_staff: httpx2.AsyncClient, client: httpx2.AsyncClient
) -> None:
    path = f"{PATH}/{(await opened(as_staff))['id']}"
    for status in ("identified", "resolved"):
        answer = await as_staff.post(f"{path}/updates", json={"status": status, "text": f"It is {status}."})
        assert answer.status_code == 201
    read = (await client.get(path)).json()
    assert [one["status"] for one in read["updates"]] == ["resolved", "identified", "investigating"]
    assert read["status"] == "resolved"
    assert read["resolved_at"]
    assert (await client.get(f"{PATH}?only_open=true")).json()["items"] == []
    again = (await as_staff.post(f"{path}/updates", json={"status": "monitoring"})).json()
    assert (again["status"], again["resolved_at"]) == ("monitoring", None)
    changed = await as_staff.patch(path, json={"title": "Payments were slow", "components": ["redis", "mail"]})
    assert changed.status_code == 200
    assert (await client.get(path)).json()["components"] == ["redis", "mail"]


async def test_incidents_are_listed_newest_first_page_by_page(
    as_staff: httpx2.AsyncClient, client: httpx2.AsyncClient
) -> None:
    for number in range(3):
        await opened(as_staff, title=f"Incident {number}")
    first = (await client.get(f"{PATH}?limit=2")).json()
    rest = (await client.get(f"{PATH}?limit=2&cursor={first['next']}")).json()
    assert [one["title"] for one in first["items"] + rest["items"]] == ["Incident 2", "Incident 1", "Incident 0"]
    assert rest["next"] is None
    assert (await client.get(f"{PATH}?cursor=!")).status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        {"title": ""},
        {"components": ["<b>"]},
        {"components": ["a,b"]},
        {"components": ["a"] * 21},
        {"status": "fine"},
        {"text": "x" * 5001},
        {"opened_at": "2020-01-01T00:00:00Z"},
        {"automatic": True},
    ],
)
async def test_what_makes_no_sense_is_refused(as_staff: httpx2.AsyncClient, body: dict[str, Any]) -> None:
    assert (await as_staff.post(PATH, json=PAYMENTS | body)).status_code == 422


@pytest.mark.skipif("audit" not in FEATURES, reason="the audit log was taken out")
async def test_what_staff_write_is_in_the_audit_log(as_staff: httpx2.AsyncClient, as_admin: httpx2.AsyncClient) -> None:
    made = await opened(as_staff)
    log = (await as_admin.get(f"/api/v1/audit?subject_type=incidents&subject_id={made['id']}")).json()["items"]
    assert [one["action"].rpartition(".")[2] for one in log] == ["created"]


async def test_the_status_says_what_is_up_how_often_it_was_and_what_is_open(
    as_staff: httpx2.AsyncClient, client: httpx2.AsyncClient, session: AsyncSession
) -> None:
    hour = utc_now().replace(minute=0, second=0)
    sums: dict[str, Any] = {"latency_sum": 3.0, "latency_max": 1.0}
    for span, start in ((HOUR, hour), (DAY, hour.replace(hour=0))):
        session.add(Rollup(component="database", span=span, starts_at=start, looks=4, looks_up=3, **sums))
    await session.commit()
    made = await opened(as_staff)
    await opened(as_staff, status="resolved")
    answer = (await client.get("/api/v2/status")).json()
    assert answer["status"] == "ok"
    components = {one["name"]: one for one in answer["components"]}
    assert set(components["database"]) == {"name", "status", "latency_ms"}
    assert components["database"]["status"] == "up"
    assert answer["uptime"] == [{"component": "database", "day": 0.75, "week": 0.75, "quarter": 0.75}]
    assert [one["id"] for one in answer["incidents"]] == [made["id"]]


async def test_the_status_is_there_when_the_database_is_not(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(DATABASE_URL="postgresql://nobody@127.0.0.1:1/none", DATABASE__CONNECT_TIMEOUT="1")
    async with new_client(app) as client:
        answer = await client.get("/api/v2/status")
    assert answer.status_code == 200
    assert answer.json()["status"] == "down"
    assert {"name", "status", "latency_ms"} == set(answer.json()["components"][0])
    assert "127.0.0.1" not in answer.text
    assert "Error" not in answer.text


async def test_without_any_looks_nothing_is_said_to_be_up(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/api/v2/status")).json()["uptime"] == []


async def test_v1_knows_neither(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/api/v1/status")).status_code == 404
    assert (await client.get("/api/v1/incidents")).status_code == 404


async def test_an_incident_of_somebody_who_has_gone_stays(
    as_admin: httpx2.AsyncClient,
    make_user: MakeUser,
    client_for: Callable[..., httpx2.AsyncClient],
    session: AsyncSession,
) -> None:
    staff = await make_user("staff")
    await opened(client_for(staff))
    assert (await as_admin.delete(f"/api/v1/users/{staff.id}")).status_code == 204
    [incident] = (await session.exec(select(Incident))).all()
    assert incident.title == PAYMENTS["title"]
