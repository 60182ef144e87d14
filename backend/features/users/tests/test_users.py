"""The users resource: all methods, filters, paging, and what must not be possible."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.preconditions import etag
from backend.features.users.models import User
from backend.features.users.schemas import UserOut
from backend.testing import PASSWORD, PASSWORD_HASH, MakeUser

USERS = "/api/v1/users"
GRACE = {"email": "grace@example.com", "password": PASSWORD, "full_name": "Grace Hopper", "role": "staff"}
Statements = Callable[[], AbstractContextManager[list[str]]]


async def create(admin: httpx2.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await admin.post(USERS, json=GRACE | fields)
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created


async def test_the_whole_life_of_an_account(as_admin: httpx2.AsyncClient, client: httpx2.AsyncClient) -> None:
    created = await as_admin.post(USERS, json=GRACE)
    path = created.headers["Location"]
    assert (await as_admin.get(path)).json() == created.json()
    assert created.headers["ETag"] == etag(1, UserOut)

    put = await as_admin.put(path, json={"email": "g@example.com", "role": "user"}, headers={"If-Match": '"1"'})
    assert (put.json()["email"], put.json()["full_name"], put.json()["role"]) == ("g@example.com", "", "user")

    stale = await as_admin.patch(path, json={"full_name": "G"}, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["error"]["details"]) == (412, {"current_version": 2})

    await as_admin.patch(path, json={"password": "another good password"})
    form = {"username": "g@example.com", "password": "another good password"}
    assert (await client.post("/api/v1/auth/token", data=form)).status_code == 200

    assert (await as_admin.delete(path)).status_code == 204
    assert (await as_admin.get(path)).status_code == 404


async def test_head_tells_without_a_body(as_staff: httpx2.AsyncClient, make_user: MakeUser) -> None:
    user = await make_user(full_name="Countable")
    listed = await as_staff.head(USERS, params={"q": "Countable"})
    assert (listed.status_code, listed.headers["X-Total-Count"], listed.content) == (200, "1", b"")
    one = await as_staff.head(f"{USERS}/{user.id}")
    assert (one.status_code, one.headers["ETag"], one.content) == (200, etag(1, UserOut), b"")
    assert (await as_staff.head(f"{USERS}/2000000000")).status_code == 404


async def test_options_tell_the_methods(client: httpx2.AsyncClient) -> None:
    collection = await client.options(USERS)
    assert (collection.status_code, collection.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, POST")
    one = await client.options(f"{USERS}/1")
    assert (one.status_code, one.headers["Allow"]) == (204, "DELETE, GET, HEAD, OPTIONS, PATCH, PUT")


async def test_allow_names_exactly_the_methods_there_are(as_admin: httpx2.AsyncClient) -> None:
    for path in (USERS, f"{USERS}/2000000000"):
        allowed = set((await as_admin.options(path)).headers["Allow"].split(", "))
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"):
            answer = await as_admin.request(method, path)
            assert (answer.status_code != 405) == (method in allowed), method


@pytest.fixture
async def people(session: AsyncSession) -> list[User]:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    rows = [
        User(
            email=f"{name}@filter.example",
            full_name=name.title(),
            password_hash=PASSWORD_HASH,
            role=role,
            is_active=active,
            created_at=start + timedelta(days=day),
        )
        for day, (name, role, active) in enumerate(
            [("cleo", "user", True), ("abel", "staff", True), ("dora", "user", False), ("bert", "admin", True)]
        )
    ]
    session.add_all(rows)
    await session.commit()
    return rows


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, "cleo abel dora bert"),
        ({"sort": "email"}, "abel bert cleo dora"),
        ({"sort": "-created_at"}, "bert dora abel cleo"),
        ({"role": "user"}, "cleo dora"),
        ({"is_active": "false"}, "dora"),
        ({"q": "ABEL"}, "abel"),
        ({"created_from": "2020-01-02T00:00:00Z", "created_to": "2020-01-03T00:00:00Z"}, "abel"),
        ({"created_from": "2020-01-02T01:00:00+01:00", "created_to": "2020-01-03"}, "abel"),
        ({"page": 2, "page_size": 3}, "bert"),
    ],
    ids=str,
)
async def test_filters_order_and_pages(
    as_staff: httpx2.AsyncClient, people: list[User], query: dict[str, Any], expected: str
) -> None:
    answer = await as_staff.get(USERS, params={"q": "@filter.example"} | query)
    assert answer.status_code == 200, answer.text
    assert " ".join(one["email"].split("@")[0] for one in answer.json()["items"]) == expected
    assert answer.headers["X-Total-Count"] == str(answer.json()["total"])


@pytest.mark.parametrize(
    "query",
    [
        "sort=password_hash",
        "role=root",
        "is_active=maybe",
        "created_from=soon",
        "q=%00",
        "page=0",
        "created_to=0001-01-01T00:00:00%2B23:59",
    ],
)
async def test_bad_filters_are_422(as_staff: httpx2.AsyncClient, query: str) -> None:
    assert (await as_staff.get(f"{USERS}?{query}")).status_code == 422


async def test_taken_addresses_are_409(as_admin: httpx2.AsyncClient) -> None:
    first = await create(as_admin)
    second = await create(as_admin, email="second@example.com")
    assert (await as_admin.post(USERS, json=GRACE)).status_code == 409
    clash = await as_admin.patch(f"{USERS}/{second['id']}", json={"email": "GRACE@example.com"})
    assert clash.status_code == 409
    assert (await as_admin.patch(f"{USERS}/{first['id']}", json={"email": GRACE["email"]})).status_code == 200


async def test_the_last_active_admin_stays(as_admin: httpx2.AsyncClient, make_user: MakeUser) -> None:
    me = (await as_admin.get(f"{USERS}/me")).json()
    path = f"{USERS}/{me['id']}"
    await make_user("admin", is_active=False)
    refusals = [
        await as_admin.delete(path),
        await as_admin.patch(path, json={"role": "staff"}),
        await as_admin.patch(path, json={"is_active": False}),
        await as_admin.put(path, json={"email": me["email"]}),
    ]
    assert [answer.status_code for answer in refusals] == [409] * 4
    await make_user("admin")
    assert (await as_admin.patch(path, json={"role": "staff"})).status_code == 200


async def test_the_password_hash_never_leaves(as_admin: httpx2.AsyncClient, make_user: MakeUser) -> None:
    user = await make_user()
    for path in (USERS, f"{USERS}/{user.id}", f"{USERS}/me"):
        assert "argon2" not in (await as_admin.get(path)).text


@pytest.mark.parametrize("bad", ["0", "-1", "abc", "1.5", str(2**31), str(10**30), "%00"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
async def test_bad_ids_are_never_a_500(as_admin: httpx2.AsyncClient, method: str, bad: str) -> None:
    assert (await as_admin.request(method, f"{USERS}/{bad}")).status_code in (404, 422)


async def test_a_list_that_fits_a_page_costs_a_known_caller_one_statement(
    as_staff: httpx2.AsyncClient, people: list[User], statements: Statements
) -> None:
    await as_staff.get(USERS)
    with statements() as seen:
        assert (await as_staff.get(USERS)).status_code == 200
    assert len(seen) == 1, seen
