"""Exports through HTTP: what is in them, who may have them, and how many run at once."""

import csv
import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from importlib import import_module
from typing import Any

import httpx2
import openpyxl
import pytest
from fastapi import FastAPI
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from admin.exporting import AT_ONCE
from admin.tests.test_guard import console_of
from backend.features import FEATURES
from backend.testing import Console, MakeUser

Statements = Callable[[], AbstractContextManager[list[str]]]
COLUMNS = [
    "id",
    "email",
    "full_name",
    "role",
    "is_active",
    "created_at",
    "email_verified_at",
    "updated_at",
    "version",
]


def read_csv(answer: httpx2.Response) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(answer.content.decode("utf-8-sig"), newline="")))


async def test_an_export_has_the_columns_of_the_records_page_and_no_secret(
    console: Console, make_user: MakeUser
) -> None:
    admin = await make_user("admin", full_name="=cmd|' /C calc'!A0")
    browser = await console(admin.email)
    answer = await browser.get("/admin/user/export/csv")
    [row] = read_csv(answer)
    assert list(row) == COLUMNS
    assert (row["id"], row["full_name"], row["is_active"]) == (str(admin.id), "'=cmd|' /C calc'!A0", "true")
    assert row["created_at"].endswith("Z")
    assert admin.password_hash not in answer.text
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"].startswith('attachment; filename="users-2')
    assert answer.headers["cache-control"] == "no-store"


async def test_all_pages_of_what_the_list_shows_in_its_order(console: Console, make_user: MakeUser) -> None:
    for number in range(30):
        await make_user("user", email=f"match{number:02}@example.com")
    await make_user("user", email="other@example.com")
    browser = await console((await make_user("admin", email="admin@example.com")).email)
    query = "search=match&sortBy=email&sort=desc&pageSize=25&page=2"
    expected = [f"match{number:02}@example.com" for number in reversed(range(30))]
    assert f"export/xlsx?{query.replace('&', '&amp;')}" in (await browser.get(f"/admin/user/list?{query}")).text
    assert [row["email"] for row in read_csv(await browser.get(f"/admin/user/export/csv?{query}"))] == expected
    told = (await browser.get(f"/admin/user/export/json?{query}")).json()
    assert [row["email"] for row in told] == expected
    assert list(told[0]) == COLUMNS
    book = openpyxl.load_workbook(io.BytesIO((await browser.get(f"/admin/user/export/xlsx?{query}")).content))
    rows = [[cell.value for cell in row] for row in book["Users"].iter_rows()]
    assert rows[0] == COLUMNS
    assert [row[1] for row in rows[1:]] == expected


@pytest.mark.parametrize("users", [1, 40])
async def test_an_export_takes_one_statement_however_many_it_has(
    console: Console, make_user: MakeUser, statements: Statements, users: int
) -> None:
    browser = await console((await make_user("admin")).email)
    for _ in range(users):
        await make_user("user")
    with statements() as seen:
        answer = await browser.get("/admin/user/export/json")
    assert len(answer.json()) == users + 1
    assert len([one for one in seen if "users.email_verified_at" in one and "ORDER BY" in one]) == 1


@pytest.mark.parametrize(
    ("address", "status"),
    [("csv?sortBy=password_hash", 400), ("csv?search=%00", 400), ("html", 404), ("pdf?search=x", 404)],
)
async def test_what_cannot_be_exported_is_refused(
    console: Console, make_user: MakeUser, address: str, status: int
) -> None:
    browser = await console((await make_user("admin")).email)
    assert (await browser.get(f"/admin/user/export/{address}")).status_code == status


async def test_who_may_look_may_not_take_it_all_along(console: Console, make_user: MakeUser) -> None:
    browser = await console((await make_user("staff")).email)
    page = await browser.get("/admin/user/list")
    assert (page.status_code, "/export/" in page.text) == (200, False)
    assert (await browser.get("/admin/user/export/csv")).status_code == 403


async def test_sessions_are_not_exported(console: Console, make_user: MakeUser) -> None:
    browser = await console((await make_user("admin")).email)
    assert "/export/" not in (await browser.get("/admin/user-session/list")).text
    assert (await browser.get("/admin/user-session/export/csv")).status_code == 403


async def test_more_than_some_at_once_are_asked_to_come_back(
    console: Console, make_user: MakeUser, app: FastAPI
) -> None:
    browser = await console((await make_user("admin")).email)
    exports = app_exports(app)
    with exports.places.taken(), exports.places.taken():
        answer = await browser.get("/admin/user/export/csv")
    assert AT_ONCE == 2
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert "Other exports are running" in answer.text
    assert (await browser.get("/admin/user/export/csv")).status_code == 200
    assert exports.places.free == AT_ONCE


def app_exports(app: FastAPI) -> Any:
    route: Any = next(route for route in console_of(app).routes if getattr(route, "name", "") == "export")
    return route.endpoint.__self__.exports


@pytest.mark.skipif("audit" not in FEATURES, reason="nobody would write it down")
async def test_an_export_is_in_the_audit_log(console: Console, make_user: MakeUser, session: AsyncSession) -> None:
    entries: Any = import_module("backend.features.audit.models").AuditEntry
    admin = await make_user("admin", email="zoe@example.com")
    await (await console(admin.email)).get("/admin/user/export/json?search=zoe")
    statement = select(entries).where(col(entries.action) == "console.exported")
    entry = (await session.exec(statement)).one()
    assert (entry.actor_id, entry.via) == (admin.id, "console")
    told = {"view": "user", "format": "json", "query": "search=zoe", "rows": 1, "complete": True}
    assert entry.details == told
