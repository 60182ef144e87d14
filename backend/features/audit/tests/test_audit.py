"""The audit log through HTTP, on every database: what is recorded, for whom, and what never is."""

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy.orm import Mapper, configure_mappers
from sqlalchemy.orm.attributes import instance_dict
from sqlmodel import SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.errors import Forbidden
from backend.core.events import SecurityEvent, emit
from backend.core.masking import masked
from backend.core.models import SecretText
from backend.features.audit.listener import _columns, _whole
from backend.features.audit.models import AuditEntry
from backend.features.audit.values import LONGEST, REDACTED, shown
from backend.features.users import service
from backend.features.users.models import OneTimeToken, RefreshToken, User, UserSession
from backend.testing import PASSWORD, Console, MakeUser

pytest.importorskip("backend.features.request_id", reason="entries are told apart by their request ids")

AUDIT = "/api/v1/audit"
USERS = "/api/v1/users"
ADA = {"email": "ada@example.org", "password": "a-long-enough-secret-1", "full_name": "Ada Byron"}
Statements = Callable[[], AbstractContextManager[list[str]]]
Caller = httpx2.AsyncClient


async def entries(admin: Caller, **chosen: Any) -> list[dict[str, Any]]:
    answer = await admin.get(AUDIT, params={"limit": 100} | chosen)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["items"]
    return found


async def entry(admin: Caller, **chosen: Any) -> dict[str, Any]:
    (one,) = await entries(admin, **chosen)
    return one


async def test_a_change_is_recorded_with_before_and_after_and_who_did_it_from_where(as_admin: Caller) -> None:
    me = (await as_admin.get(f"{USERS}/me")).json()
    created = await as_admin.post(USERS, json=ADA, headers={"User-Agent": "Engine/1", "X-Request-ID": "first"})
    key = created.json()["id"]
    await as_admin.patch(f"{USERS}/{key}", json={"full_name": "Ada Lovelace"}, headers={"X-Request-ID": "second"})
    await as_admin.delete(f"{USERS}/{key}", headers={"X-Request-ID": "third"})

    born = await entry(as_admin, request_id="first", action="users.")
    assert born["action"] == "users.created"
    assert born["changes"]["email"] == [None, "ada@example.org"]
    assert born["changes"]["is_active"] == [None, True]
    assert (born["actor_id"], born["actor_name"], born["via"]) == (me["id"], me["email"], "token")
    assert (born["address"], born["user_agent"]) == ("127.0.0.1", "Engine/1")
    assert born["credential"]
    assert (born["subject_type"], born["subject_id"]) == ("users", str(key))
    assert datetime.fromisoformat(born["at"]) > datetime.now(UTC) - timedelta(minutes=5)

    edited = await entry(as_admin, request_id="second", action="users.")
    assert edited["changes"] == {"full_name": ["Ada Byron", "Ada Lovelace"]}

    gone = await entry(as_admin, request_id="third", action="users.")
    assert gone["action"] == "users.deleted"
    assert gone["changes"]["full_name"] == ["Ada Lovelace", None]


async def test_what_is_deleted_stays_in_the_log_and_so_does_who_did_it(
    as_admin: Caller, make_user: MakeUser, client_for: Callable[..., Caller], session: AsyncSession
) -> None:
    user = await make_user()
    await client_for(user).patch(f"{USERS}/me", json={"full_name": "Mayfly"})
    await as_admin.delete(f"{USERS}/{user.id}")
    mine = await entries(as_admin, actor_id=user.id)
    assert [(one["action"], one["actor_name"]) for one in mine] == [("users.updated", user.email)]


async def test_an_edit_that_changes_nothing_leaves_no_entry(as_admin: Caller) -> None:
    await as_admin.post(USERS, json=ADA)
    key = (await as_admin.get(USERS, params={"q": "ada@example.org"})).json()["items"][0]["id"]
    await as_admin.patch(f"{USERS}/{key}", json={"full_name": ADA["full_name"]}, headers={"X-Request-ID": "same"})
    assert await entries(as_admin, request_id="same") == []


async def test_what_is_refused_leaves_no_entry(as_admin: Caller) -> None:
    await as_admin.post(USERS, json=ADA)
    answer = await as_admin.post(USERS, json=ADA, headers={"X-Request-ID": "twice"})
    assert answer.status_code == 409
    assert await entries(as_admin, request_id="twice") == []


async def test_a_change_that_is_rolled_back_takes_its_entry_along(app: FastAPI, as_admin: Caller) -> None:
    async with app.state.database.session() as session:
        await service.create_user(session, email="nobody@example.org", password=ADA["password"])
        assert await session.scalar(select(AuditEntry.id).where(AuditEntry.action == "users.created").limit(1))
        await session.rollback()
    assert [one for one in await entries(as_admin) if "nobody@example.org" in str(one)] == []


async def test_a_savepoint_that_is_rolled_back_takes_its_entry_along(app: FastAPI, as_admin: Caller) -> None:
    async with app.state.database.session() as session:
        session.add(User(email="kept@example.org", password_hash="!"))
        inner = await session.begin_nested()
        session.add(User(email="dropped@example.org", password_hash="!"))
        await session.flush()
        await inner.rollback()
        await session.commit()
    found = [one["changes"]["email"][1] for one in await entries(as_admin, action="users.created")]
    assert "kept@example.org" in found
    assert "dropped@example.org" not in found


async def test_what_was_overwritten_unread_is_said_to_be_unknown(app: FastAPI, as_admin: Caller) -> None:
    async with app.state.database.session() as session:
        user = await service.create_user(session, email="blind@example.org", password=ADA["password"], full_name="A")
        await session.commit()
        session.expire(user, ["full_name"])
        user.full_name = "B"
        await session.commit()
        key = user.id
    one = await entry(as_admin, subject_type="users", subject_id=key, action="users.updated")
    assert one["changes"] == {"full_name": ["(not known)", "B"]}


async def test_outside_a_request_the_system_did_it(app: FastAPI, as_admin: Caller) -> None:
    async with app.state.database.session() as session:
        user = await service.create_user(session, email="cron@example.org", password=ADA["password"])
        await session.commit()
    for one in await entries(as_admin, subject_type="users", subject_id=user.id):
        assert (one["via"], one["actor_id"], one["address"], one["request_id"]) == ("system", None, "", "")


async def test_changes_in_the_console_name_the_person_at_the_console(
    as_admin: Caller, console: Console, make_user: MakeUser
) -> None:
    admin = await make_user("admin")
    browser = await console(admin.email)
    form = {"email": "new@example.org", "full_name": "", "role": "staff", "is_active": "y", "password": ADA["password"]}
    answer = await browser.post("/admin/user/create", data=form, headers={"X-Request-ID": "by-hand"})
    assert answer.status_code == 302, answer.text
    for one in await entries(as_admin, request_id="by-hand"):
        assert (one["actor_id"], one["actor_name"], one["via"]) == (admin.id, admin.email, "console")
        assert one["credential"]
    assert {one["action"] for one in await entries(as_admin, request_id="by-hand")} == {
        "users.created",
        "account.created",
    }


async def test_sign_ins_and_failures_are_there(as_admin: Caller, client: Caller, make_user: MakeUser) -> None:
    user = await make_user()
    for password, rid in ((PASSWORD, "good"), ("wrong password", "bad")):
        await client.post(
            "/api/v1/auth/token",
            data={"username": user.email, "password": password},
            headers={"X-Request-ID": rid},
        )
    good, bad = await entry(as_admin, request_id="good"), await entry(as_admin, request_id="bad")
    assert (good["action"], good["subject_id"], good["via"]) == ("sign_in.succeeded", str(user.id), "anonymous")
    assert good["details"]["method"] == "password"
    assert (bad["action"], bad["subject_id"]) == ("sign_in.failed", str(user.id))
    assert bad["details"] == {"email": user.email, "reason": "wrong password"}


@pytest.mark.parametrize(
    ("typed", "kept"),
    [("ada@nowhere.example", "a•••@nowhere.example"), ("my secret password", REDACTED), ("@example.org", REDACTED)],
)
async def test_a_failed_sign_in_to_nobodys_address_is_kept_without_what_was_typed(
    as_admin: Caller, client: Caller, typed: str, kept: str
) -> None:
    await client.post(
        "/api/v1/auth/token", data={"username": typed, "password": "x"}, headers={"X-Request-ID": "stranger"}
    )
    one = await entry(as_admin, request_id="stranger")
    assert one["details"] == {"email": kept, "reason": "unknown account"}
    assert (one["subject_type"], one["subject_id"]) == ("", "")


async def test_permission_changes_are_events_of_their_own(as_admin: Caller, make_user: MakeUser) -> None:
    user = await make_user()
    await as_admin.patch(f"{USERS}/{user.id}", json={"role": "staff"}, headers={"X-Request-ID": "promoted"})
    found = {one["action"]: one for one in await entries(as_admin, request_id="promoted")}
    assert found["role.changed"]["details"] == {"before": "user", "after": "staff"}
    assert found["users.updated"]["changes"] == {"role": ["user", "staff"]}


async def test_a_refusal_by_the_route_takes_the_events_back(app: FastAPI, as_admin: Caller) -> None:
    class Planned(SecurityEvent):
        action = "planned.event"

    with pytest.raises(Forbidden):
        async with app.state.database.session() as session:
            await emit(session, Planned(user_id=None))
            raise Forbidden
    assert await entries(as_admin, action="planned.event") == []


async def test_no_secret_of_a_whole_life_is_in_the_log(
    app: FastAPI, as_admin: Caller, client: Caller, session: AsyncSession
) -> None:
    used = {ADA["password"], "another-long-secret-2", "a-wrong-secret-3"}
    await client.post("/api/v1/auth/signup", json=ADA)
    login = {"username": ADA["email"], "password": ADA["password"]}
    token = (await client.post("/api/v1/auth/token", data=login)).json()
    used |= {token["access_token"], token["refresh_token"]}
    await client.post("/api/v1/auth/token", data=login | {"password": "a-wrong-secret-3"})
    renewed = (await client.post("/api/v1/auth/refresh", json={"refresh_token": token["refresh_token"]})).json()
    used |= {renewed["access_token"], renewed["refresh_token"]}
    changed = await client.post(
        "/api/v1/auth/password",
        json={"current_password": ADA["password"], "new_password": "another-long-secret-2"},
        headers={"Authorization": f"Bearer {renewed['access_token']}", "X-Request-ID": "changed"},
    )
    assert changed.status_code == 204, changed.text
    connection = await session.connection()
    for table in SQLModel.metadata.sorted_tables:  # whatever is stored as a secret is a secret
        for column in table.columns:
            if isinstance(column.type, SecretText):
                used |= {row[0] for row in (await connection.execute(sa.select(column))) if row[0]}
    log = "\n".join(str(tuple(row)) for row in await connection.execute(sa.text("SELECT * FROM audit_log")))
    assert log.count("sign_in.") >= 2
    assert len(used) > 8
    assert [secret for secret in used if secret in log] == []
    assert (await entry(as_admin, request_id="changed", action="users."))["changes"] == {
        "password_hash": [REDACTED, REDACTED]
    }


def _mappers() -> list[Mapper[Any]]:
    configure_mappers()
    return sorted(SQLModel._sa_registry.mappers, key=lambda one: str(one.local_table))


@pytest.mark.parametrize("mapper", _mappers(), ids=lambda one: str(one.local_table))
def test_every_tables_secrets_are_redacted(mapper: Mapper[Any]) -> None:
    record = mapper.class_()
    for column in mapper.columns:
        setattr(record, str(column.key), "in the clear")
    for gone in (True, False):
        changes = _whole(instance_dict(record), mapper, gone=gone)
        for column in mapper.columns:
            if isinstance(column.type, SecretText):
                assert sorted(changes[str(column.key)], key=str) == sorted([None, REDACTED], key=str)


def test_columns_that_look_like_secrets_are_declared_as_such() -> None:
    """The log redacts by type: a secret in a plain text column would be kept for all to read."""
    looks = re.compile(r"(password|token|secret|key|code)_hash$|^(secret|password|private_key|recovery_codes)$")
    audited = [one for one in _mappers() if getattr(one.class_, "__audited__", True)]
    plain = [
        f"{mapper.local_table}.{column.key}"
        for mapper in audited
        for column in mapper.columns
        if looks.search(str(column.key)) and not isinstance(column.type, SecretText)
    ]
    assert plain == []


def test_bookkeeping_is_left_out() -> None:
    for model in (UserSession, RefreshToken, OneTimeToken, AuditEntry):
        assert model.__audited__ is False
    (users,) = [one for one in _mappers() if one.class_ is User]
    assert {name for name, _ in _columns(users)}.isdisjoint({"id", "version", "updated_at"})


class Colour(Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (1.5, 1.5),
        (float("nan"), "nan"),
        (Decimal("19.90"), "19.90"),
        (datetime(2026, 1, 31, 9, 30, tzinfo=UTC), "2026-01-31T09:30:00+00:00"),
        (Colour.RED, "red"),
        (SecretStr("hush"), REDACTED),
        (b"four", "(4 bytes)"),
        ({"b", "a"}, ["a", "b"]),
        ({"price": Decimal("1.5")}, {"price": "1.5"}),
        ("x" * LONGEST, "x" * LONGEST),
        ("x" * 1001, "x" * LONGEST + "… (1001 characters)"),
        (["y" * 2000], '["' + "y" * 998 + "… (2004 characters)"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_values_become_json_of_bounded_size(value: object, kept: object) -> None:
    assert shown(value) == kept


@pytest.mark.parametrize(("name", "kept"), [("ada@x.org", "a•••@x.org"), ("a@b@c", "a•••@c"), ("", REDACTED)])
def test_masking(name: str, kept: str) -> None:
    assert masked(name) == kept


async def test_any_script_and_quotes_survive(as_admin: Caller) -> None:
    name = "Лампа ランプ 🛋️ 'q' \"dq\" \\ <b>"
    await as_admin.post(USERS, json=ADA | {"full_name": name}, headers={"X-Request-ID": "script"})
    assert (await entry(as_admin, request_id="script", action="users."))["changes"]["full_name"] == [None, name]


FILTERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "actor_id": lambda one: one["actor_id"],
    "action": lambda one: one["action"].split(".")[0] + ".",
    "subject_type": lambda one: one["subject_type"],
    "subject_id": lambda one: one["subject_id"],
    "request_id": lambda one: one["request_id"],
    "address": lambda one: one["address"],
}


@pytest.mark.parametrize("name", FILTERS)
async def test_filters_choose(as_admin: Caller, client: Caller, name: str) -> None:
    await as_admin.post(USERS, json=ADA)
    await client.post("/api/v1/auth/signup", json=ADA | {"email": "self@example.org"})
    await client.post("/api/v1/auth/token", data={"username": "nobody@example.org", "password": "x"})
    everything = await entries(as_admin)
    wanted = FILTERS[name](next(one for one in everything if one["actor_id"]))
    found = await entries(as_admin, **{name: wanted})
    assert found
    assert found == [one for one in everything if FILTERS[name](one) == wanted]
    assert len(found) < len(everything)


async def test_an_action_is_matched_by_how_it_begins_and_to_the_letter(as_admin: Caller) -> None:
    await as_admin.post(USERS, json=ADA)
    assert await entries(as_admin, action="users.cre")
    assert await entries(as_admin, action="users_") == []
    assert await entries(as_admin, action="%") == []


async def test_since_and_until_bound_the_time(as_admin: Caller) -> None:
    await as_admin.post(USERS, json=ADA)
    hour = timedelta(hours=1)
    before, after = (datetime.now(UTC) - hour).isoformat(), (datetime.now(UTC) + hour).isoformat()
    assert await entries(as_admin, since=before, until=after)
    assert await entries(as_admin, since=after) == []
    assert await entries(as_admin, until=before) == []


@pytest.mark.parametrize(
    "wrong", ["actor_id=0", "actor_id=2147483648", "since=yesterday", "action=%00", f"address={'x' * 101}", "limit=101"]
)
async def test_bad_filters_are_422(as_admin: Caller, wrong: str) -> None:
    assert (await as_admin.get(f"{AUDIT}?{wrong}")).status_code == 422


async def test_a_cursor_that_is_not_ours_is_400(as_admin: Caller) -> None:
    assert (await as_admin.get(AUDIT, params={"cursor": "LTE"})).status_code == 400


async def test_the_cursor_leads_through_all_and_keeps_the_filters(as_admin: Caller) -> None:
    for number in range(7):
        await as_admin.post(USERS, json=ADA | {"email": f"ada{number}@example.org"})
    seen: list[str] = []
    url: str | None = f"{AUDIT}?limit=3&action=account.created"
    while url and len(seen) < 20:
        answer = await as_admin.get(url)
        seen += [one["details"]["email"] for one in answer.json()["items"]]
        url = answer.links["next"]["url"] if answer.json()["next"] else None
    assert seen == [f"ada{number}@example.org" for number in range(6, -1, -1)]


async def test_only_administrators_read_it(as_user: Caller, as_staff: Caller, client: Caller) -> None:
    assert (await client.get(AUDIT)).status_code == 401
    assert (await as_user.get(AUDIT)).status_code == 403
    assert (await as_staff.get(AUDIT)).status_code == 403


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_nobody_writes_it(as_admin: Caller, method: str) -> None:
    for path in (AUDIT, f"{AUDIT}/1"):
        assert (await as_admin.request(method, path, json={})).status_code in (404, 405)


async def test_reading_costs_two_statements_however_long_the_log(
    as_admin: Caller, session: AsyncSession, statements: Statements
) -> None:
    session.add_all(AuditEntry(action="planted.entry", via="system") for _ in range(120))
    await session.commit()
    await as_admin.get(AUDIT)
    with statements() as seen:
        assert len(await entries(as_admin, action="planted.")) == 100
    assert 1 <= len(seen) <= 2, seen


@pytest.mark.parametrize("rows", [1, 50])
async def test_writing_costs_one_statement_however_much_a_flush_writes(
    app: FastAPI, statements: Statements, rows: int
) -> None:
    async with app.state.database.session() as session:
        session.add_all(User(email=f"many{number}@example.org", password_hash="!") for number in range(rows))
        with statements() as seen:
            await session.flush()
        assert sum("audit_log" in one for one in seen) == 1, seen
        found = (await session.exec(select(AuditEntry).where(AuditEntry.action == "users.created"))).all()
        assert len({one.subject_id for one in found}) == rows
        await session.rollback()


async def test_without_the_feature_nothing_is_recorded_and_nothing_missed(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(FEATURES_OFF="audit")
    assert not [path for path in app.openapi()["paths"] if "audit" in path]
    await app.state.database.start()
    async with app.state.database.session() as session:
        await service.create_user(session, email="quiet@example.org", password=ADA["password"])
        await session.commit()
        assert (await session.exec(select(AuditEntry))).all() == []
