"""API keys: made, shown once, used within their scopes and their owner's, rotated, revoked."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.events import SecurityEvent
from backend.core.models import utc_now
from backend.features import FEATURES
from backend.features.api_keys.models import ApiKey
from backend.features.api_keys.uses import Uses
from backend.features.users.tokens import sha256
from backend.testing import ClientFor, MakeUser, new_client

pytestmark = pytest.mark.usefixtures("uses")

KEYS = "/api/v1/api-keys"
ME = "/api/v1/auth/me"
Statements = Callable[[], AbstractContextManager[list[str]]]
Asked = dict[str, Any]


@pytest.fixture
async def with_key(app: FastAPI) -> AsyncIterator[Callable[[str], httpx2.AsyncClient]]:
    clients: list[httpx2.AsyncClient] = []

    def make(key: str) -> httpx2.AsyncClient:
        clients.append(new_client(app, headers={"X-API-Key": key}))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


WithKey = Callable[[str], httpx2.AsyncClient]


async def made(client: httpx2.AsyncClient, *scopes: str, **more: Any) -> Asked:
    answer = await client.post(KEYS, json={"name": "Nightly import", "scopes": scopes, **more})
    assert answer.status_code == 201, answer.text
    body: Asked = answer.json()
    return body


async def test_a_key_is_shown_once_and_stored_as_a_hash(as_user: httpx2.AsyncClient, session: AsyncSession) -> None:
    answer = await as_user.post(KEYS, json={"name": "Nightly import", "scopes": []})
    body = answer.json()
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    assert body["key"].startswith(f"{body['prefix']}_")
    one = await as_user.get(answer.headers["Location"])
    assert one.json() == {name: value for name, value in body.items() if name != "key"}
    assert (await as_user.get(KEYS)).json() == [one.json()]
    stored = (await session.exec(select(ApiKey))).one()
    assert stored.key_hash == sha256(body["key"])
    assert body["key"] not in repr(stored)
    assert stored.key_hash not in repr(stored)


async def test_a_key_is_its_owner_within_its_scopes(
    make_user: MakeUser, client_for: ClientFor, with_key: WithKey
) -> None:
    admin = await make_user("admin")
    person = client_for(admin)
    narrow, wide = await made(person), await made(person, "users:read")
    me = (await with_key(wide["key"]).get(ME)).json()
    assert (me["email"], me["permissions"]) == (admin.email, ["users:read"])
    assert (await with_key(wide["key"]).get("/api/v1/users")).status_code == 200
    refused = await with_key(narrow["key"]).get("/api/v1/users")
    assert refused.status_code == 403
    assert refused.json()["error"]["details"] == {"missing": ["users:read"]}


async def test_nobody_gives_a_key_more_than_they_may_do_in_this_request(
    make_user: MakeUser, client_for: ClientFor
) -> None:
    admin = await make_user("admin")
    for client in (client_for(await make_user()), client_for(admin, "users:write")):
        answer = await client.post(KEYS, json={"name": "Wide", "scopes": ["users:read"]})
        assert answer.status_code == 403
        assert answer.json()["error"]["details"] == {"missing": ["users:read"]}
    wide = await made(client_for(admin), "users:read")
    rotated = await client_for(admin, "users:write").post(f"{KEYS}/{wide['id']}/rotate")
    assert rotated.status_code == 403


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"scopes": ["users:fly"]}, "body.scopes"),
        ({"scopes": ["not a scope"]}, "body.scopes.0"),
        ({"scopes": None}, "body.scopes"),
        ({"name": ""}, "body.name"),
        ({"name": "nul\x00"}, "body.name"),
        ({"expires_in_days": 0}, "body.expires_in_days"),
        ({"expires_in_days": 366}, "body.expires_in_days"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "body.expires_at"),
        ({"expires_at": "2920-01-01T00:00:00Z"}, "body.expires_at"),
        ({"expires_at": "2026-01-01T00:00:00Z", "expires_in_days": 3}, "body"),
        ({"user_id": 1}, "body.user_id"),
    ],
    ids=str,
)
async def test_bad_values_are_refused(as_user: httpx2.AsyncClient, wrong: Asked, field: str) -> None:
    answer = await as_user.post(KEYS, json={"name": "Import", "scopes": [], **wrong})
    assert answer.status_code == 422
    assert answer.json()["error"]["details"][0]["field"] == field


async def test_a_key_ends_when_it_was_told_to_or_after_the_longest_time(as_user: httpx2.AsyncClient) -> None:
    tomorrow = (utc_now() + timedelta(days=1)).isoformat()
    for asked, days in (({}, 365), ({"expires_in_days": 7}, 7), ({"expires_at": tomorrow}, 1)):
        key = await made(as_user, **asked)
        assert abs(datetime.fromisoformat(key["expires_at"]) - utc_now() - timedelta(days=days)) < timedelta(minutes=1)


async def test_keys_without_end_only_where_they_are_allowed(
    as_user: httpx2.AsyncClient, with_key: WithKey, environment: Callable[..., None]
) -> None:
    environment(API_KEYS__MAX_DAYS="0")
    key = await made(as_user)
    assert key["expires_at"] is None
    assert (await with_key(key["key"]).get(ME)).status_code == 200


async def expire(session: AsyncSession, key_id: int) -> None:
    key = await session.get_one(ApiKey, key_id)
    key.expires_at = utc_now()
    session.add(key)
    await session.commit()


async def test_keys_that_are_no_good_are_strangers(
    app: FastAPI, as_user: httpx2.AsyncClient, with_key: WithKey, session: AsyncSession
) -> None:
    expired, revoked, good = await made(as_user), await made(as_user), await made(as_user)
    assert (await with_key(revoked["key"]).get(ME)).status_code == 200
    assert (await as_user.delete(f"{KEYS}/{revoked['id']}")).status_code == 204
    await expire(session, expired["id"])
    forged = good["key"][:-1] + ("A" if good["key"][-1] != "A" else "B")
    bad = (expired["key"], revoked["key"], forged, good["prefix"], "", "mk_", "é", "x" * 5000, f" {good['key']}x")
    for key in bad:
        answer = await with_key("").get(ME, headers={b"X-API-Key": key.encode()})
        assert answer.status_code == 401, key
        assert answer.headers["WWW-Authenticate"] == 'ApiKey header="X-API-Key"'
        assert not key or key not in answer.text
    assert (await with_key(good["key"]).get(ME)).status_code == 200


async def test_a_key_that_is_known_is_good_no_longer_than_it_is(
    app: FastAPI, as_user: httpx2.AsyncClient, with_key: WithKey
) -> None:
    soon = (utc_now() + timedelta(seconds=8)).isoformat()
    key = await made(as_user, expires_at=soon)
    assert (await with_key(key["key"]).get(ME)).status_code == 200
    ((until, _),) = [known for name, known in app.state.principals._known.items() if key["key"] in name]
    assert until - time.monotonic() <= 8  # and not SECURITY__PRINCIPAL_CACHE_SECONDS


async def test_a_deactivated_owner_has_no_keys(
    make_user: MakeUser, client_for: ClientFor, as_admin: httpx2.AsyncClient, with_key: WithKey
) -> None:
    owner = await make_user()
    service = with_key((await made(client_for(owner)))["key"])
    assert (await service.get(ME)).status_code == 200
    await as_admin.patch(f"/api/v1/users/{owner.id}", json={"is_active": False})
    assert (await service.get(ME)).status_code == 401
    await as_admin.patch(f"/api/v1/users/{owner.id}", json={"is_active": True})
    assert (await service.get(ME)).status_code == 200
    await as_admin.delete(f"/api/v1/users/{owner.id}")
    assert (await service.get(ME)).status_code == 401


async def test_a_key_loses_what_its_owner_loses(
    make_user: MakeUser, client_for: ClientFor, as_admin: httpx2.AsyncClient, with_key: WithKey
) -> None:
    owner = await make_user("staff")
    service = with_key((await made(client_for(owner), "users:read"))["key"])
    assert (await service.get("/api/v1/users")).status_code == 200
    await as_admin.patch(f"/api/v1/users/{owner.id}", json={"role": "user"})
    assert (await service.get("/api/v1/users")).status_code == 403
    assert (await service.get(ME)).json()["permissions"] == []


async def test_a_known_key_costs_no_statement(
    as_user: httpx2.AsyncClient, with_key: WithKey, statements: Statements
) -> None:
    service = with_key((await made(as_user))["key"])
    await service.get(ME)
    with statements() as second:
        await service.get(ME)
    assert second == []


async def test_what_looks_like_no_key_costs_no_statement(with_key: WithKey, statements: Statements) -> None:
    with statements() as seen:
        assert (await with_key("mk_short").get(ME)).status_code == 401
    assert seen == []


async def test_a_bearer_token_wins_over_a_key(make_user: MakeUser, client_for: ClientFor, with_key: WithKey) -> None:
    one, other = await make_user(), await make_user()
    key = (await made(client_for(one)))["key"]
    both = await client_for(other).get(ME, headers={"X-API-Key": key})
    assert both.json()["email"] == other.email
    assert (await client_for(other).get(ME, headers={"X-API-Key": "useless"})).status_code == 200
    bad_token = await with_key(key).get(ME, headers={"Authorization": "Bearer useless"})
    assert bad_token.status_code == 401
    another_kind = await with_key(key).get(ME, headers={"Authorization": "Basic dXNlcjpwYXNz"})
    assert another_kind.json()["email"] == one.email


async def test_a_key_is_no_bearer_token_and_a_token_no_key(
    as_user: httpx2.AsyncClient, client: httpx2.AsyncClient, with_key: WithKey
) -> None:
    key, token = (await made(as_user))["key"], as_user.headers["Authorization"].removeprefix("Bearer ")
    assert {(await with_key(key).get(ME)).status_code, (await as_user.get(ME)).status_code} == {
        200
    }  # both are known now
    for shown in (key, f"X-API-Key {key}", f" X-API-Key {key}"):
        assert (await client.get(ME, headers={"Authorization": f"Bearer {shown}"})).status_code == 401
    for shown in (token, f"Bearer {token}"):
        assert (await with_key(shown).get(ME)).status_code == 401


IN_PERSON = [
    ("POST", "/api/v1/auth/password", {"current_password": "x" * 12, "new_password": "y" * 12}),
    ("POST", "/api/v1/auth/logout", None),
    ("POST", "/api/v1/auth/logout-everywhere", None),
    ("GET", "/api/v1/auth/sessions", None),
    ("DELETE", "/api/v1/auth/sessions/1", None),
    ("GET", KEYS, None),
    ("POST", KEYS, {"name": "Child", "scopes": []}),
    ("GET", f"{KEYS}/%d", None),
    ("PATCH", f"{KEYS}/%d", {"name": "Mine"}),
    ("POST", f"{KEYS}/%d/rotate", None),
    ("DELETE", f"{KEYS}/%d", None),
    ("GET", "/api/v1/users/1/api-keys", None),
    ("DELETE", "/api/v1/users/1/api-keys/%d", None),
]


@pytest.mark.parametrize(("method", "path", "body"), IN_PERSON, ids=lambda part: part if isinstance(part, str) else "")
async def test_a_key_does_nothing_that_a_person_must_do(
    as_admin: httpx2.AsyncClient, with_key: WithKey, method: str, path: str, body: Asked | None
) -> None:
    key = await made(as_admin, "api_keys:manage")
    answer = await with_key(key["key"]).request(method, path.replace("%d", str(key["id"])), json=body)
    assert answer.status_code == 403
    assert "API key" in answer.json()["error"]["message"]
    assert (await with_key(key["key"]).get(ME)).status_code == 200


async def test_a_rotated_key_works_on_for_the_overlap(
    as_staff: httpx2.AsyncClient, with_key: WithKey, session: AsyncSession
) -> None:
    old = await made(as_staff, "users:read", expires_in_days=30)
    new = (await as_staff.post(f"{KEYS}/{old['id']}/rotate", json={"overlap_hours": 3})).json()
    assert (new["name"], new["scopes"]) == (old["name"], old["scopes"])
    for key in (old, new):
        assert (await with_key(key["key"]).get("/api/v1/users")).status_code == 200
    shown = await session.get_one(ApiKey, old["id"])
    assert shown.expires_at
    assert shown.replaced_by == new["id"]
    assert abs(shown.expires_at - utc_now() - timedelta(hours=3)) < timedelta(minutes=1)
    again = await as_staff.post(f"{KEYS}/{old['id']}/rotate")
    assert again.status_code == 409
    assert len((await as_staff.get(KEYS)).json()) == 2


async def test_without_overlap_the_old_key_ends_at_once(as_user: httpx2.AsyncClient, with_key: WithKey) -> None:
    old = await made(as_user)
    assert (await with_key(old["key"]).get(ME)).status_code == 200
    answer = await as_user.post(f"{KEYS}/{old['id']}/rotate", json={"overlap_hours": 0})
    assert answer.headers["Cache-Control"] == "no-store"
    assert (await with_key(old["key"]).get(ME)).status_code == 401
    assert (await with_key(answer.json()["key"]).get(ME)).status_code == 200


async def test_rotation_makes_no_key_live_longer_than_keys_may(
    as_user: httpx2.AsyncClient, environment: Callable[..., None], session: AsyncSession
) -> None:
    environment(API_KEYS__MAX_DAYS="0")
    old = await made(as_user)
    environment(API_KEYS__MAX_DAYS="10")
    new = (await as_user.post(f"{KEYS}/{old['id']}/rotate")).json()
    ends = (await session.get_one(ApiKey, new["id"])).expires_at
    assert ends
    assert abs(ends - utc_now() - timedelta(days=10)) < timedelta(minutes=1)


async def test_a_key_that_is_over_is_not_rotated(as_user: httpx2.AsyncClient, session: AsyncSession) -> None:
    revoked, expired = await made(as_user), await made(as_user)
    await as_user.delete(f"{KEYS}/{revoked['id']}")
    await expire(session, expired["id"])
    for key in (revoked, expired):
        assert (await as_user.post(f"{KEYS}/{key['id']}/rotate")).status_code == 409
    assert len((await as_user.get(KEYS)).json()) == 2


@pytest.mark.parametrize("hours", [-1, 169, "3", None])
async def test_the_overlap_is_a_week_at_most(as_user: httpx2.AsyncClient, hours: Any) -> None:
    key = await made(as_user)
    assert (await as_user.post(f"{KEYS}/{key['id']}/rotate", json={"overlap_hours": hours})).status_code == 422


async def test_a_key_is_renamed_and_nothing_else(as_user: httpx2.AsyncClient) -> None:
    key = await made(as_user)
    answer = await as_user.patch(f"{KEYS}/{key['id']}", json={"name": "Hourly import"})
    assert answer.json()["name"] == "Hourly import"
    assert (await as_user.get(f"{KEYS}/{key['id']}")).json()["name"] == "Hourly import"
    assert (await as_user.patch(f"{KEYS}/{key['id']}", json={"scopes": ["users:read"]})).status_code == 422


async def test_other_peoples_keys_are_not_there(as_user: httpx2.AsyncClient, as_staff: httpx2.AsyncClient) -> None:
    theirs = f"{KEYS}/{(await made(as_staff))['id']}"
    assert (await as_user.get(KEYS)).json() == []
    answers = [
        await as_user.get(theirs),
        await as_user.patch(theirs, json={"name": "Mine"}),
        await as_user.post(f"{theirs}/rotate"),
        await as_user.delete(theirs),
    ]
    assert [answer.status_code for answer in answers] == [404] * 4


async def test_a_person_has_so_many_keys_at_most(as_user: httpx2.AsyncClient, environment: Callable[..., None]) -> None:
    environment(API_KEYS__PER_PERSON="2")
    first, _ = await made(as_user), await made(as_user)
    body = {"name": "One more", "scopes": []}
    assert (await as_user.post(KEYS, json=body)).status_code == 409
    rotated = await as_user.post(f"{KEYS}/{first['id']}/rotate")
    assert rotated.status_code == 201
    assert (await as_user.post(KEYS, json=body)).status_code == 409
    await as_user.delete(f"{KEYS}/{rotated.json()['id']}")
    assert (await as_user.post(KEYS, json=body)).status_code == 201


async def test_keys_that_ended_long_ago_go(as_user: httpx2.AsyncClient, session: AsyncSession) -> None:
    gone, lately = await made(as_user), await made(as_user)
    for key, days in ((gone, 31), (lately, 29)):
        row = await session.get_one(ApiKey, key["id"])
        row.revoked_at = utc_now() - timedelta(days=days)
        session.add(row)
    await session.commit()
    kept = await made(as_user)
    assert [key["id"] for key in (await as_user.get(KEYS)).json()] == [kept["id"], lately["id"]]


async def test_administrators_see_and_revoke_anybodys_keys(
    as_admin: httpx2.AsyncClient,
    as_staff: httpx2.AsyncClient,
    make_user: MakeUser,
    client_for: ClientFor,
    with_key: WithKey,
) -> None:
    owner = await make_user()
    key = await made(client_for(owner))
    theirs = f"/api/v1/users/{owner.id}/api-keys"
    assert (await as_staff.get(theirs)).status_code == 403
    assert (await as_staff.delete(f"{theirs}/{key['id']}")).status_code == 403
    (listed,) = (await as_admin.get(theirs)).json()
    assert listed["prefix"] == key["prefix"]
    assert "key" not in listed
    assert (await with_key(key["key"]).get(ME)).status_code == 200
    assert (await as_admin.delete(f"{theirs}/{key['id']}")).status_code == 204
    assert (await with_key(key["key"]).get(ME)).status_code == 401
    assert (await as_admin.get("/api/v1/users/2000000000/api-keys")).status_code == 404
    assert (await as_admin.delete(f"{theirs}/2000000000")).status_code == 404


async def test_the_last_use_is_kept_in_memory_and_stored_in_one_batch(
    app: FastAPI, as_user: httpx2.AsyncClient, with_key: WithKey, uses: Uses, statements: Statements
) -> None:
    keys = [await made(as_user), await made(as_user)]
    for key in keys:
        for _ in range(3):
            await with_key(key["key"]).get(ME)
    assert [key["last_used_at"] for key in (await as_user.get(KEYS)).json()] == [None, None]
    with statements() as seen:
        await uses.store(app.state.database)
    assert len(seen) == 1
    for key in (await as_user.get(KEYS)).json():
        assert key["last_used_at"]
        assert key["last_used_address"] == "127.0.0.1"
    with statements() as seen:
        await uses.store(app.state.database)
    assert seen == []


async def test_the_last_use_only_moves_forward(
    app: FastAPI, as_user: httpx2.AsyncClient, with_key: WithKey, uses: Uses, session: AsyncSession
) -> None:
    key = await made(as_user)
    row = await session.get_one(ApiKey, key["id"])
    row.last_used_at = later = utc_now() + timedelta(minutes=1)  # what another process stored
    row.last_used_address = "203.0.113.7"
    session.add(row)
    await session.commit()
    await with_key(key["key"]).get(ME)
    await uses.store(app.state.database)
    await session.refresh(row)
    assert (row.last_used_at, row.last_used_address) == (later, "203.0.113.7")


async def test_what_cannot_be_stored_now_is_stored_later(
    app: FastAPI,
    make_app: Callable[..., FastAPI],
    as_user: httpx2.AsyncClient,
    with_key: WithKey,
    uses: Uses,
) -> None:
    key = await made(as_user)
    await with_key(key["key"]).get(ME)
    without_tables = make_app()
    await uses.store(without_tables.state.database)
    await uses.store(app.state.database)
    assert (await as_user.get(f"{KEYS}/{key['id']}")).json()["last_used_at"]


async def test_the_document_offers_keys_where_they_open_something(
    make_app: Callable[..., FastAPI],
) -> None:
    document = make_app().openapi()
    paths: Asked = document["paths"]
    offered: Asked = {"APIKeyHeader": []}
    scheme = document["components"]["securitySchemes"]["APIKeyHeader"]
    assert (scheme["type"], scheme["in"], scheme["name"]) == ("apiKey", "header", "X-API-Key")
    assert paths["/api/v1/users"]["get"]["security"] == [{"OAuth2": ["users:read"]}, offered]
    assert offered in paths["/api/v2/auth/me"]["get"]["security"]
    for path, method in (("/api/v1/auth/signup", "post"), ("/api/v1/auth/logout", "post"), (KEYS, "get")):
        assert offered not in paths[path][method]["security"]
    assert "APIKeyHeader" not in str(make_app(FEATURES_OFF="api_keys").openapi())


async def test_the_log_of_requests_has_no_keys(
    as_user: httpx2.AsyncClient,
    with_key: WithKey,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level("DEBUG")
    answer = await as_user.post(KEYS, json={"name": "Import", "scopes": []})
    key = answer.json()["key"]
    await with_key(key).get(ME)
    await with_key(key + "x").get(ME)
    await with_key(key).get("/api/v1/users/me", params={"q": "x"})
    ours = capsys.readouterr().err
    assert ("/api/v1/users/me" in ours) == ("access_log" in FEATURES)
    assert key.split("_", 2)[2] not in caplog.text + ours
    assert key.split("_", 2)[2] not in str([vars(record) for record in caplog.records])


async def test_each_change_is_told(app: FastAPI, as_user: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[SecurityEvent] = []

    async def listen(_session: AsyncSession, event: SecurityEvent) -> None:
        told.append(event)

    handlers = app.state.database.info["handlers"]
    heard = {**handlers, SecurityEvent: (*handlers.get(SecurityEvent, ()), listen)}
    monkeypatch.setitem(app.state.database.info, "handlers", heard)
    key = await made(as_user)
    new = (await as_user.post(f"{KEYS}/{key['id']}/rotate")).json()
    for _ in range(2):
        assert (await as_user.delete(f"{KEYS}/{new['id']}")).status_code == 204
    assert [event.action for event in told] == ["api_key.created", "api_key.rotated", "api_key.revoked"]
    assert key["key"] not in str(told)
