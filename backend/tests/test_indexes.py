"""Every query that the app ships finds its rows by an index: shown by PostgreSQL's own plans on tables of some size.

The statements are those that the app really sends: routes are called, and what they sent is explained once more.
"""

import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import Connection, event, text
from sqlmodel import SQLModel

from backend.features import FEATURES
from backend.features.users.models import User
from backend.main import create_app
from backend.testing import PASSWORD, PASSWORD_HASH, new_client, session_of, settings_for, token_for

ROWS = 20_000
# Each with the times of a log that grew: rows of one moment are together.
FILL = {
    "users": "(email, full_name, password_hash, role, is_active, created_at, updated_at, version) SELECT "
    "'person' || n || '@example.com', 'Person ' || n, '!', CASE WHEN n % 1000 = 0 THEN 'staff' ELSE 'user' END, "
    "n % 1000 <> 0, TIMESTAMP '2026-01-01' + n * INTERVAL '1 minute', now(), 1",
    "sessions": "(sid, user_id, kind, method, token_hash, address, user_agent, created_at, last_seen_at, expires_at) "
    "SELECT md5(n::text), (SELECT min(id) FROM users) + n % 5000, 'token', 'password', md5(n::text), '', '', now(), "
    "now(), now() + n * INTERVAL '1 minute'",
    "refresh_tokens": "(session_id, token_hash, created_at) SELECT (SELECT min(id) FROM sessions) + n % 5000, "
    "md5(n::text), now()",
    "one_time_tokens": "(user_id, purpose, subject, token_hash, created_at, expires_at) SELECT "
    "(SELECT min(id) FROM users) + n % 5000, 'reset', '', md5(n::text), now(), now() + n * INTERVAL '1 minute'",
    "items": "(name, description, price, stock, owner_id, created_at, updated_at, version) SELECT 'Item ' || n, '', n, "
    "1, (SELECT min(id) FROM users) + n % 5000, now(), now(), 1",
    "audit_log": "(at, actor_id, actor_name, via, action, subject_type, subject_id, changes, details, address, "
    "user_agent, request_id) SELECT TIMESTAMP '2026-01-01' + n * INTERVAL '1 minute', n % 500, '', 'token', "
    "'items.' || n % 50, 'items', n::text, '{}', '{}', '10.0.0.' || n % 250, '', md5(n::text)",
    "api_keys": "(user_id, name, prefix, key_hash, scopes, created_at, last_used_address) SELECT "
    "(SELECT min(id) FROM users) + n % 5000, 'Key', 'mk_' || n, md5(n::text), 'items:read', now(), ''",
    "roles": "(name, summary, created_at, updated_at, version) SELECT 'Role ' || n, '', now(), now(), 1",
    "user_roles": "(user_id, role_id, granted_at) SELECT (SELECT min(id) FROM users) + n - 1, "
    "(SELECT min(id) FROM roles) + n % 50, now()",
    "sign_in_throttles": "(key_hash, kind, address, failures, forgotten_at) SELECT md5(n::text), 'pair', '', 1, "
    "now() + n * INTERVAL '1 minute'",
    "external_identities": "(user_id, provider, subject, email, created_at) SELECT "
    "(SELECT min(id) FROM users) + n % 5000, 'google', n::text, '', now()",
    "totp_secrets": "(user_id, encrypted, created_at, last_used_step) SELECT (SELECT min(id) FROM users) + n - 1, '!', "
    "now(), 0",
    # What lately came, is kept by the minute and by five minutes, and what is older by the hour.
    "api_usage": "(level, start, source, method, route, status, client, probe, bin, requests, micros, statements, "
    "sql_micros) SELECT CASE WHEN n > 4000 THEN 2 ELSE 4 + n % 2 END, now() - n * INTERVAL '30 seconds' - INTERVAL "
    "'10 minutes', '', 'GET', '/' || n % 20, 200, 'token', false, n % 50, 1, 1, 1, 1 ",
    "incidents": "(title, component_names, status, opened_at, resolved_at, automatic, created_at, updated_at, version) "
    "SELECT 'Incident ' || n, '', 'resolved', now() - n * INTERVAL '1 minute', CASE WHEN n % 1000 > 0 THEN "
    "now() - n * INTERVAL '1 minute' END, false, now(), now(), 1",
    "incident_updates": "(incident_id, status, text, at) SELECT (SELECT min(id) FROM incidents) + n - 1, 'resolved', "
    "'', now() - n * INTERVAL '1 minute'",
    "component_changes": "(component, up, at) SELECT 'database', n % 2 = 0, now() - n * INTERVAL '1 minute'",
    "recovery_codes": "(user_id, code_hash) SELECT (SELECT min(id) FROM users) + n % 5000, md5(n::text)",
}
V1 = "/api/v1"

# GET routes that read tables which grow.
READS = [
    "/store/items",
    "/store/items?cursor=MTUwMDA",
    "/store/items/paged",
    "/store/items/paged?page=20",
    "/store/items/7",
    "/users/{me}",
    "/users?role=staff",
    "/users?sort=email",
    "/users?sort=-id",
    "/users?sort=-created_at",
    "/users?created_from=2026-01-14T20:00:00Z",
    "/users?is_active=false",
    "/users/{me}/sessions",
    "/auth/sessions",
    "/auth/identities",
    "/auth/totp",
    "/api-keys",
    "/users/{me}/roles",
    "/audit",
    "/audit?cursor=MTUwMDA",
    "/audit?actor_id=7",
    "/audit?impersonator_id=7",
    "/audit?action=items.7",
    "/audit?action=account",
    "/audit?subject_type=items&subject_id=7",
    "/audit?address=10.0.0.7",
    "/audit?request_id=abc",
    "/audit?since=2026-01-14T20:00:00Z",
    "/audit?until=2026-01-01T02:00:00Z",
    "/api/v2/analytics?range=1h",
    "/api/v2/analytics?range=24h&group_by=route&group_by=status",
    "/api/v2/analytics?range=1h&route=/7",
    "/api/v2/incidents",
    "/api/v2/incidents?cursor=MTUwMDA",
    "/api/v2/incidents?open=true",
    "/api/v2/incidents/7",
    "/api/v2/status",
]


@pytest.fixture(scope="module")
async def filled_app(committed_database_url: str, database_name: str) -> AsyncIterator[FastAPI]:
    if database_name != "postgresql":
        pytest.skip("plans are PostgreSQL's")
    app = create_app(settings_for(committed_database_url))
    there = FILL.keys() & SQLModel.metadata.tables.keys()
    empty = text(f"TRUNCATE {', '.join(sorted(there))} RESTART IDENTITY CASCADE")
    # Before the app runs, and after: its housekeeping would wait for these locks, and they for its.
    async with app.state.database.engine.begin() as connection:
        await connection.execute(empty)  # other tests were here
        for table, columns in FILL.items():
            if table in there:
                await connection.execute(text(f"INSERT INTO {table} {columns} FROM generate_series(1, {ROWS}) n"))
    async with app.state.database.engine.connect() as connection:
        automatic = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await automatic.execute(text("VACUUM ANALYZE"))
    async with app.router.lifespan_context(app):
        yield app
    async with app.state.database.engine.begin() as connection:
        await connection.execute(empty)
    await app.state.database.close()


@pytest.fixture
async def admin(filled_app: FastAPI) -> User:
    async with filled_app.state.database.session() as session:
        user = User(email=f"{secrets.token_hex(4)}@example.com", role="admin", password_hash=PASSWORD_HASH)
        session.add(user)
        await session.flush()
        session.add(session_of(user))
        await session.commit()
        return user


@pytest.fixture
async def as_admin(filled_app: FastAPI, admin: User) -> AsyncIterator[httpx2.AsyncClient]:
    headers = {"Authorization": f"Bearer {token_for(filled_app, admin)}"}
    async with new_client(filled_app, headers=headers) as client:
        yield client


@contextmanager
def explained(app: FastAPI) -> Iterator[list[tuple[str, str]]]:
    """Each statement that the app sends, with its plan."""
    found: list[tuple[str, str]] = []
    engine, over = app.state.database.engine.sync_engine, False

    def explain(connection: Connection, _cursor: Any, statement: str, values: Any, _context: Any, many: bool) -> None:
        if over or many or statement.split(maxsplit=1)[0] not in ("SELECT", "UPDATE", "DELETE"):
            return
        own = connection.connection.cursor()
        own.execute(f"EXPLAIN {statement}", values)
        found.append((statement, "\n".join(row[0] for row in own.fetchall())))
        own.close()

    event.listen(engine, "before_cursor_execute", explain)
    try:
        yield found
    finally:
        over = True  # it stays where it is: something else may wait within it right now


FILTERS = re.compile(r"Filter: (.*)")


def scanned(plans: list[tuple[str, str]]) -> list[str]:
    """Statements that read a table of many rows from one end to the other. Counting up to a limit does not, where
    nearly every row counts: of any, or of those that are not deleted.
    """
    return [
        f"{statement}\n{plan}"
        for statement, plan in plans
        for table in FILL
        if f"Seq Scan on {table} " in plan
        and (set(FILTERS.findall(plan)) - {"(deleted_at IS NULL)"} or not statement.startswith("SELECT count(*)"))
    ]


@pytest.mark.parametrize("path", READS)
async def test_what_is_read_is_found_by_an_index(
    filled_app: FastAPI, admin: User, as_admin: httpx2.AsyncClient, path: str
) -> None:
    with explained(filled_app) as plans:
        answer = await as_admin.get(path if path.startswith("/api/") else V1 + path.replace("{me}", str(admin.id)))
    if answer.status_code == 404 and "/7" not in path:
        pytest.skip("a feature that is not there")
    assert answer.status_code in (200, 404), answer.text
    assert plans
    assert not scanned(plans), scanned(plans)[0]


async def test_signing_in_is_by_indexes(filled_app: FastAPI, admin: User) -> None:
    async with new_client(filled_app) as client:
        with explained(filled_app) as plans:
            answer = await client.post(f"{V1}/auth/token", data={"username": admin.email, "password": PASSWORD})
            assert answer.status_code == 200, answer.text
            again = await client.post(f"{V1}/auth/refresh", json={"refresh_token": answer.json()["refresh_token"]})
            assert again.status_code == 200, again.text
            await client.post(f"{V1}/auth/password/forgot", json={"email": admin.email})
            await client.get(f"{V1}/store/items", headers={"X-API-Key": "mk_12345678_" + "x" * 43})
    assert len(plans) > 3
    assert not scanned(plans), scanned(plans)[0]


@pytest.mark.skipif("analytics" not in FEATURES, reason="this tree has no analytics")
async def test_usage_is_rolled_up_by_indexes(filled_app: FastAPI) -> None:
    rolling_up = import_module("backend.features.analytics.rolling_up")
    columns = FILL["api_usage"].replace("SELECT CASE WHEN n > 4000 THEN 2 ELSE 4 + n % 2 END", "SELECT 0")
    async with filled_app.state.database.engine.begin() as connection:
        await connection.execute(text(f"INSERT INTO api_usage {columns} FROM generate_series(1, 20) n"))
    with explained(filled_app) as plans:
        await rolling_up.tidy(filled_app.state.database)
    assert {"UPDATE", "DELETE"} <= {statement.split(maxsplit=1)[0] for statement, _ in plans}
    assert not scanned(plans), scanned(plans)[0]


@pytest.mark.skipif("incidents" not in FEATURES, reason="this tree has no incidents")
async def test_old_incidents_are_found_by_indexes(filled_app: FastAPI) -> None:
    history = import_module("backend.features.incidents.history")
    with explained(filled_app) as plans:
        async with filled_app.state.database.session() as session:
            await history.forget(session)
    assert [statement for statement, _ in plans if statement.startswith("DELETE FROM incidents")]
    assert not scanned(plans), scanned(plans)[0]


# Pages of the console; counting them stops at 10,000.
PAGES = [
    "item/list",
    "item/list?at=last",
    "item/list?search=Item+777",
    "item/list?search=Item+777&sortBy=name&sort=desc",
    "item/list?sortBy=name&at=last",
    "item/list?f_owner_id=7",
    "item/lookup?q=item+777",
    "user/lookup?q=Person777",
    "user/list?at=last",
    "user/list?sortBy=created_at&sort=desc",
    "user/list?f_role=staff",
    "user/list?f_is_active=no",
    "user/list?f_created_at_from=2026-01-14",
    "audit-entry/list?f_action=items.7",
    "audit-entry/list?f_actor_id=7",
    "audit-entry/list?f_impersonator_id=7",
    "audit-entry/list?f_at_from=2026-01-14",
    "user-session/list?f_user_id=7",
]


@pytest.mark.parametrize("page", PAGES)
async def test_pages_of_the_console_are_found_by_an_index(filled_app: FastAPI, admin: User, page: str) -> None:
    async with new_client(filled_app, headers={"Sec-Fetch-Site": "same-origin"}) as browser:
        await browser.post("/admin/login", data={"username": admin.email, "password": PASSWORD})
        with explained(filled_app) as plans:
            answer = await browser.get(f"/admin/{page}")
    if answer.status_code == 404:
        pytest.skip("a feature that is not there")
    assert answer.status_code == 200, answer.text
    lists = [one for one in plans if not one[0].startswith("SELECT (SELECT count(*)")]
    assert not scanned(lists), scanned(lists)[0]
    if "search=" in page:
        assert any("ix_items_name_lower" in plan for _, plan in plans), plans


async def test_deleting_an_account_finds_what_refers_to_it_by_indexes(filled_app: FastAPI) -> None:
    """A foreign key without an index has PostgreSQL read the whole table that refers, for each row deleted."""
    statement = text("""
        SELECT c.conrelid::regclass || '.' || a.attname FROM pg_constraint c
        JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = c.conkey[1]
        WHERE c.contype = 'f' AND NOT EXISTS (
            SELECT FROM pg_index i WHERE i.indrelid = c.conrelid AND i.indkey[0] = c.conkey[1])""")
    async with filled_app.state.database.engine.connect() as connection:
        assert [row[0] for row in await connection.execute(statement)] == []
