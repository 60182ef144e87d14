"""Roles through the API: what they are, who holds them, what that permits, and that nobody rises by them."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core import events
from backend.core.preconditions import etag
from backend.features.roles.events import RoleEvent, RolesGranted, RolesRevoked
from backend.features.roles.models import Role, RolePermission, UserRole
from backend.features.roles.schemas import RoleOut
from backend.features.roles.seed import ROLES, seed
from backend.features.users.models import User
from backend.testing import PASSWORD, ClientFor, MakeUser

Statements = Callable[[], AbstractContextManager[list[str]]]
Answer = httpx2.Response

URL = "/api/v1/roles"
DESK = {"name": "Support desk", "summary": "Looks accounts up", "permissions": ["console:enter", "users:read"]}


@pytest.fixture
async def with_role(session: AsyncSession, make_user: MakeUser) -> Callable[..., Any]:
    """`await with_role("users:read")`: somebody of rank user whose one role holds these permissions."""

    async def make(*permissions: str, rank: str = "user") -> User:
        user = await make_user(rank)
        role = Role(name=f"For {user.email}", permissions=[RolePermission(permission=one) for one in permissions])
        session.add(role)
        await session.flush()
        session.add(UserRole(user_id=user.id or 0, role_id=role.id or 0))
        await session.commit()
        return user

    return make


WithRole = Callable[..., Any]


@pytest.fixture
def told(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> list[events.SecurityEvent]:
    """What the features say happened."""
    heard: list[events.SecurityEvent] = []

    async def listen(_session: AsyncSession, event: events.SecurityEvent) -> None:
        heard.append(event)

    handlers = dict(app.state.database.info["handlers"])
    handlers[events.SecurityEvent] = (*handlers.get(events.SecurityEvent, ()), listen)
    monkeypatch.setitem(app.state.database.info, "handlers", handlers)
    return heard


async def sign_in(client: httpx2.AsyncClient, user: User, scope: str = "") -> dict[str, Any]:
    answer = await client.post(
        "/api/v1/auth/token", data={"username": user.email, "password": PASSWORD, "scope": scope}
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def bearer(tokens: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


async def new_role(client: httpx2.AsyncClient, *permissions: str, name: str = "Role") -> int:
    answer = await client.post(URL, json={"name": name, "permissions": permissions})
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def missing(answer: Answer) -> list[str]:
    assert answer.status_code == 403, answer.text
    return list(answer.json()["error"]["details"]["missing"])


# --- roles as rows -------------------------------------------------------------------------------------------------


async def test_a_role_is_created_read_changed_and_deleted(as_admin: httpx2.AsyncClient) -> None:
    created = await as_admin.post(URL, json={**DESK, "permissions": ["users:read", "console:enter", "users:read"]})
    assert (created.status_code, created.headers["etag"]) == (201, etag(1, RoleOut))
    address = created.headers["location"]
    assert address == f"{URL}/{created.json()['id']}"
    read = await as_admin.get(address)
    assert {name: read.json()[name] for name in DESK} == DESK
    assert read.json()["unknown"] == []

    changed = await as_admin.patch(address, json={"permissions": ["roles:read", "users:read"]})
    assert (changed.status_code, changed.headers["etag"]) == (200, etag(2, RoleOut))
    assert changed.json()["permissions"] == ["roles:read", "users:read"]
    replaced = await as_admin.put(address, json={"name": "Desk"})
    assert (replaced.json()["name"], replaced.json()["summary"], replaced.json()["permissions"]) == ("Desk", "", [])
    assert (await as_admin.delete(address)).status_code == 204
    assert (await as_admin.get(address)).status_code == 404


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_an_edit_of_an_outdated_state_is_refused(as_admin: httpx2.AsyncClient, method: str) -> None:
    address = f"{URL}/{await new_role(as_admin, 'users:read')}"
    assert (await as_admin.patch(address, json={"permissions": []})).headers["etag"] == etag(2, RoleOut)
    body = None if method == "DELETE" else {"name": "Mine"}
    answer = await as_admin.request(method, address, json=body, headers={"If-Match": '"1"'})
    assert answer.status_code == 412
    assert (await as_admin.request(method, address, json=body, headers={"If-Match": '"2"'})).status_code < 300


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_a_role_names_declared_permissions_only(as_admin: httpx2.AsyncClient, method: str) -> None:
    address = URL if method == "POST" else f"{URL}/{await new_role(as_admin)}"
    answer = await as_admin.request(method, address, json={"name": "Wide", "permissions": ["users:read", "moon:land"]})
    assert answer.status_code == 422
    assert answer.json()["error"]["details"] == [
        {"field": "body.permissions", "message": "There is no permission moon:land", "type": "unknown_permission"}
    ]


async def test_names_are_unique(as_admin: httpx2.AsyncClient) -> None:
    await new_role(as_admin, name="One")
    two = await new_role(as_admin, name="Two")
    for answer in (
        await as_admin.post(URL, json={"name": "One"}),
        await as_admin.patch(f"{URL}/{two}", json={"name": "One"}),
    ):
        assert (answer.status_code, answer.json()["error"]["details"]) == (409, {"field": "name"})
    assert (await as_admin.patch(f"{URL}/{two}", json={"name": "Two"})).status_code == 200


async def test_roles_are_listed_page_by_page(as_admin: httpx2.AsyncClient) -> None:
    for name in ("Cook", "Baker", "Under baker"):
        await new_role(as_admin, "users:read", name=name)
    page = (await as_admin.get(URL, params={"q": "BAKER", "page_size": 1})).json()
    assert [one["name"] for one in page["items"]] == ["Baker"]
    assert (page["total"], page["pages"]) == (2, 2)


async def test_a_list_costs_as_much_with_many_roles_as_with_one(
    as_admin: httpx2.AsyncClient, statements: Statements
) -> None:
    seen: list[list[str]] = []
    for number in range(4):
        await new_role(as_admin, "users:read", "roles:read", name=f"Role {number}")
        with statements() as these:
            page = (await as_admin.get(URL)).json()
        seen.append(these)
        assert all(one["permissions"] == ["roles:read", "users:read"] for one in page["items"])
    assert [len(these) for these in seen] == [2, 2, 2, 2], seen[-1]  # roles, and their permissions


async def test_a_name_without_a_feature_is_shown_as_unknown_permits_nothing_and_may_stay(
    as_admin: httpx2.AsyncClient, with_role: WithRole, client: httpx2.AsyncClient, session: AsyncSession
) -> None:
    user = await with_role("users:read", "moon:land")
    assert "moon:land" not in (await sign_in(client, user))["scope"].split()
    row = (await session.exec(select(Role).where(Role.name == f"For {user.email}"))).one()
    role = (await as_admin.get(f"{URL}/{row.id}")).json()
    assert (role["permissions"], role["unknown"]) == (["moon:land", "users:read"], ["moon:land"])
    edited = {"name": "Astronaut", "permissions": role["permissions"]}
    assert (await as_admin.put(f"{URL}/{row.id}", json=edited)).json()["unknown"] == ["moon:land"]
    assert (await as_admin.patch(f"{URL}/{row.id}", json={"permissions": ["users:read"]})).json()["unknown"] == []


async def test_a_role_with_a_name_without_a_feature_is_given_to_nobody(
    as_admin: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession
) -> None:
    role = Role(name="Astronaut", permissions=[RolePermission(permission="moon:land")])
    session.add(role)
    await session.commit()
    user = await make_user()
    answer = await as_admin.put(f"/api/v1/users/{user.id}/roles", json={"roles": [role.id]})
    assert missing(answer) == ["moon:land"]  # its feature may come back, and nobody here may say who lands


async def test_all_permissions_are_listed_with_who_holds_them(app: FastAPI, as_staff: httpx2.AsyncClient) -> None:
    listed = {one["name"]: one for one in (await as_staff.get("/api/v1/permissions")).json()}
    assert listed.keys() == app.state.registry.permissions.keys()
    assert listed["roles:write"] == {
        "name": "roles:write",
        "summary": "Create, change and delete roles, give and take them",
        "feature": "roles",
        "ranks": ["admin"],
    }
    assert listed["users:read"]["ranks"] == ["staff", "admin"]


# --- who holds them ------------------------------------------------------------------------------------------------


async def test_the_roles_of_a_person_are_replaced_and_read(
    make_user: MakeUser, client_for: ClientFor, told: list[events.SecurityEvent]
) -> None:
    admin, user = await make_user("admin"), await make_user()
    caller, address = client_for(admin), f"/api/v1/users/{user.id}/roles"
    one, two = [await new_role(caller, "users:read", name=name) for name in ("One", "Two")]
    assert [held["name"] for held in (await caller.put(address, json={"roles": [two, one, one]})).json()] == [
        "One",
        "Two",
    ]
    answer = await caller.put(address, json={"roles": [two]})
    (held,) = answer.json()
    assert (held["id"], held["granted_by"], held["permissions"]) == (two, admin.id, ["users:read"])
    assert (await caller.get(address)).json() == [held]
    assert (await caller.put(address, json={"roles": []})).json() == []
    granted, *revoked = [event for event in told if isinstance(event, RolesGranted | RolesRevoked)]
    assert granted == RolesGranted(user_id=user.id, before=[], after=["One", "Two"])
    assert revoked == [
        RolesRevoked(user_id=user.id, before=["One", "Two"], after=["Two"]),
        RolesRevoked(user_id=user.id, before=["Two"], after=[]),
    ]


async def test_roles_that_do_not_exist_are_named(as_admin: httpx2.AsyncClient, make_user: MakeUser) -> None:
    user = await make_user()
    answer = await as_admin.put(f"/api/v1/users/{user.id}/roles", json={"roles": [2**31 - 1]})
    assert (answer.status_code, answer.json()["error"]["details"][0]["field"]) == (422, "body.roles")
    assert (await as_admin.put("/api/v1/users/2147483647/roles", json={"roles": []})).status_code == 404
    assert (await as_admin.get("/api/v1/users/2147483647/roles")).status_code == 404


async def test_rows_go_with_the_account_and_with_the_role(
    as_admin: httpx2.AsyncClient, make_user: MakeUser, session: AsyncSession
) -> None:
    leaver, stayer = await make_user(), await make_user()
    one, two = [await new_role(as_admin, "users:read", name=name) for name in ("One", "Two")]
    for user in (leaver, stayer):
        await as_admin.put(f"/api/v1/users/{user.id}/roles", json={"roles": [one, two]})
    assert (await as_admin.delete(f"/api/v1/users/{leaver.id}")).status_code == 204
    assert (await as_admin.delete(f"{URL}/{one}")).status_code == 204
    assert (await session.exec(select(UserRole.user_id, UserRole.role_id))).all() == [(stayer.id, two)]
    assert (await session.exec(select(RolePermission.role_id))).all() == [two]


async def test_a_grant_outlives_the_account_that_gave_it(
    make_user: MakeUser, client_for: ClientFor, as_admin: httpx2.AsyncClient
) -> None:
    giver, user = await make_user("admin"), await make_user()
    role = await new_role(as_admin, "users:read")
    await client_for(giver).put(f"/api/v1/users/{user.id}/roles", json={"roles": [role]})
    assert (await as_admin.delete(f"/api/v1/users/{giver.id}")).status_code == 204
    (held,) = (await as_admin.get(f"/api/v1/users/{user.id}/roles")).json()
    assert (held["id"], held["granted_by"]) == (role, None)


async def test_what_happens_to_a_role_is_told(
    as_admin: httpx2.AsyncClient, make_user: MakeUser, told: list[events.SecurityEvent]
) -> None:
    user = await make_user()
    role = await new_role(as_admin, "users:read", name="Desk")
    await as_admin.put(f"/api/v1/users/{user.id}/roles", json={"roles": [role]})
    await as_admin.patch(f"{URL}/{role}", json={"summary": "Nothing that matters to security"})
    await as_admin.patch(f"{URL}/{role}", json={"name": "Help", "permissions": ["roles:read"]})
    await as_admin.delete(f"{URL}/{role}")
    about = {"role_id": role, "role": "Help"}
    assert [(event.action, event.user_id, event.details()) for event in told if isinstance(event, RoleEvent)] == [
        ("role.created", None, {"role_id": role, "role": "Desk", "permissions": ["users:read"]}),
        ("role.renamed", None, {**about, "before": "Desk"}),
        ("role.permissions_changed", None, {**about, "before": ["users:read"], "after": ["roles:read"]}),
        ("role.deleted", None, {**about, "permissions": ["roles:read"], "holders": 1}),
    ]


# --- what that permits ---------------------------------------------------------------------------------------------


async def test_a_role_permits_what_it_holds(with_role: WithRole, client: httpx2.AsyncClient) -> None:
    user = await with_role("users:read")
    tokens = await sign_in(client, user)
    assert "users:read" in tokens["scope"].split()
    assert (await client.get("/api/v1/users", headers=bearer(tokens))).status_code == 200
    assert (await client.get(URL, headers=bearer(tokens))).status_code == 403
    assert "users:read" in (await client.get("/api/v1/auth/me", headers=bearer(tokens))).json()["permissions"]


async def test_asking_for_a_persons_permissions_is_one_statement_and_none_while_they_are_known(
    with_role: WithRole, client_for: ClientFor, statements: Statements
) -> None:
    caller = client_for(await with_role("users:read"))
    counts = []
    for _ in range(2):
        with statements() as seen:
            assert (await caller.get("/api/v1/users")).status_code == 200
        counts.append(sum("user_roles" in statement for statement in seen))
    assert counts == [1, 0]


async def test_a_token_for_some_scopes_never_exceeds_what_the_person_holds(
    with_role: WithRole, client: httpx2.AsyncClient
) -> None:
    user = await with_role("users:read", "console:enter")
    tokens = await sign_in(client, user, "users:read users:write roles:write")
    assert tokens["scope"] == "users:read"
    answer = await client.post("/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert answer.json()["scope"] == "users:read"


Change = Callable[[httpx2.AsyncClient, int, int], Any]

LOSSES: dict[str, Change] = {
    "the role loses it": lambda admin, role, _user: admin.patch(f"{URL}/{role}", json={"permissions": []}),
    "the role is deleted": lambda admin, role, _user: admin.delete(f"{URL}/{role}"),
    "the person loses the role": lambda admin, _role, user: admin.put(
        f"/api/v1/users/{user}/roles", json={"roles": []}
    ),
}


@pytest.mark.parametrize("loss", LOSSES)
async def test_what_is_lost_is_lost_at_once(
    as_admin: httpx2.AsyncClient, make_user: MakeUser, client: httpx2.AsyncClient, loss: str
) -> None:
    user = await make_user()
    role = await new_role(as_admin, "users:read")
    await as_admin.put(f"/api/v1/users/{user.id}/roles", json={"roles": [role]})
    tokens = await sign_in(client, user)
    assert (await client.get("/api/v1/users", headers=bearer(tokens))).status_code == 200
    assert (await LOSSES[loss](as_admin, role, user.id or 0)).status_code < 300
    refused = await client.get("/api/v1/users", headers=bearer(tokens))
    assert missing(refused) == ["users:read"]


async def test_what_is_gained_comes_with_the_next_access_token(
    as_admin: httpx2.AsyncClient, make_user: MakeUser, client: httpx2.AsyncClient
) -> None:
    user = await make_user()
    tokens = await sign_in(client, user)
    assert (await client.get("/api/v1/users", headers=bearer(tokens))).status_code == 403
    role = await new_role(as_admin, "users:read")
    await as_admin.put(f"/api/v1/users/{user.id}/roles", json={"roles": [role]})
    assert (await client.get("/api/v1/users", headers=bearer(tokens))).status_code == 403
    answer = await client.post("/api/v1/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert (await client.get("/api/v1/users", headers=bearer(answer.json()))).status_code == 200


async def test_what_was_lost_and_given_back_is_there_at_once(
    as_admin: httpx2.AsyncClient, make_user: MakeUser, client: httpx2.AsyncClient
) -> None:
    user = await make_user()
    role = await new_role(as_admin, "users:read")
    await as_admin.put(f"/api/v1/users/{user.id}/roles", json={"roles": [role]})
    tokens = await sign_in(client, user)
    for permissions, status in (([], 403), (["users:read"], 200)):
        await as_admin.patch(f"{URL}/{role}", json={"permissions": permissions})
        assert (await client.get("/api/v1/users", headers=bearer(tokens))).status_code == status


# --- nobody rises --------------------------------------------------------------------------------------------------

MANAGER = ("roles:read", "roles:write")


async def test_nobody_puts_into_a_role_what_they_do_not_hold(
    with_role: WithRole, client_for: ClientFor, as_admin: httpx2.AsyncClient
) -> None:
    manager = client_for(await with_role(*MANAGER))
    mine = await new_role(manager, *MANAGER, name="Deputy")
    theirs = await new_role(as_admin, "users:write", name="Theirs")
    more = {"name": "More", "permissions": ["roles:read", "users:write"]}
    for answer in (
        await manager.post(URL, json=more),
        await manager.put(f"{URL}/{mine}", json=more),
        await manager.patch(f"{URL}/{mine}", json={"permissions": ["users:write"]}),
        await manager.patch(f"{URL}/{theirs}", json={"name": "Harmless"}),
        await manager.patch(f"{URL}/{theirs}", json={"permissions": []}),
        await manager.delete(f"{URL}/{theirs}"),
    ):
        assert missing(answer) == ["users:write"]
    assert (await as_admin.get(f"{URL}/{mine}")).json()["permissions"] == list(MANAGER)


async def test_nobody_gives_what_they_do_not_hold_not_even_to_themselves(
    with_role: WithRole, make_user: MakeUser, client_for: ClientFor, as_admin: httpx2.AsyncClient
) -> None:
    person, other = await with_role(*MANAGER), await make_user()
    manager = client_for(person)
    role = await new_role(as_admin, "users:write")
    for user in (person, other):
        answer = await manager.put(f"/api/v1/users/{user.id}/roles", json={"roles": [role]})
        assert missing(answer) == ["users:write"]
    mine = await new_role(manager, *MANAGER, name="Deputy")
    assert (await manager.put(f"/api/v1/users/{other.id}/roles", json={"roles": [mine]})).status_code == 200


@pytest.mark.parametrize("who", ["a member of staff", "somebody whose role holds more"])
async def test_nobody_manages_the_roles_of_somebody_who_holds_more(
    with_role: WithRole, make_user: MakeUser, client_for: ClientFor, who: str
) -> None:
    manager = client_for(await with_role(*MANAGER))
    mine = await new_role(manager, "roles:read", name="Reader")
    user = await (make_user("staff") if who == "a member of staff" else with_role("users:write"))
    for roles in ([mine], []):
        answer = await manager.put(f"/api/v1/users/{user.id}/roles", json={"roles": roles})
        assert answer.status_code == 403, answer.text


async def test_a_narrow_token_of_an_administrators_is_bounded_by_itself(
    make_user: MakeUser, client_for: ClientFor, as_admin: httpx2.AsyncClient, with_role: WithRole
) -> None:
    admin, user, held = await make_user("admin"), await make_user(), await with_role("users:read")
    narrow = client_for(admin, *MANAGER)
    wide = await new_role(as_admin, "users:read", name="Wide")
    for answer in (
        await narrow.post(URL, json={"name": "Mine", "permissions": ["users:read"]}),
        await narrow.patch(f"{URL}/{wide}", json={"summary": "Mine"}),
        await narrow.delete(f"{URL}/{wide}"),
        await narrow.put(f"/api/v1/users/{user.id}/roles", json={"roles": [wide]}),
    ):
        assert missing(answer) == ["users:read"]
    for person in (admin, held):  # who hold more than this token
        assert (await narrow.put(f"/api/v1/users/{person.id}/roles", json={"roles": []})).status_code == 403
    mine = await new_role(narrow, "roles:read", name="Narrow")
    assert (await narrow.put(f"/api/v1/users/{user.id}/roles", json={"roles": [mine]})).status_code == 200


async def test_a_token_for_accounts_alone_makes_no_administrator_even_an_administrators(
    make_user: MakeUser, client_for: ClientFor
) -> None:
    admin, other, user = await make_user("admin"), await make_user("admin"), await make_user()
    narrow, users = client_for(admin, "users:read", "users:write"), "/api/v1/users"
    new = {"email": "new@example.com", "password": "Nautilus-1954-x"}
    for answer in (
        await narrow.post(users, json={**new, "role": "admin"}),
        await narrow.post(users, json={**new, "role": "staff"}),
        await narrow.patch(f"{users}/{user.id}", json={"role": "admin"}),
        await narrow.patch(f"{users}/{other.id}", json={"password": new["password"]}),
        await narrow.patch(f"{users}/{admin.id}", json={"password": new["password"]}),
    ):
        assert answer.status_code == 403, answer.text
    assert (await narrow.post(users, json=new)).status_code == 201
    assert (await narrow.patch(f"{users}/{user.id}", json={"password": new["password"]})).status_code == 200


@pytest.mark.parametrize("permissions", [("users:read", "users:write"), ("users:read", "users:write", *MANAGER)])
async def test_who_got_the_right_to_change_accounts_by_a_role_makes_no_administrator(
    with_role: WithRole,
    make_user: MakeUser,
    client_for: ClientFor,
    session: AsyncSession,
    permissions: tuple[str, ...],
) -> None:
    person = await with_role(*permissions)
    admin, staff, user, strong = (
        await make_user("admin"),
        await make_user("staff"),
        await make_user(),
        await with_role("users:write", "roles:read", "console:enter"),
    )
    caller, users = client_for(person), "/api/v1/users"
    new = {"email": "new@example.com", "password": "Nautilus-1954-x"}
    for rank in ("staff", "admin"):
        assert (await caller.post(users, json={**new, "role": rank})).status_code == 403
        for one in (person, user):
            assert (await caller.patch(f"{users}/{one.id}", json={"role": rank})).status_code == 403
            assert (await caller.put(f"{users}/{one.id}", json={"email": one.email, "role": rank})).status_code == 403
    for one in (admin, staff, strong):
        address = f"{users}/{one.id}"
        for answer in (
            await caller.patch(address, json={"password": "Nautilus-1954-x"}),
            await caller.patch(address, json={"email": "mine@example.com"}),
            await caller.put(address, json={"email": one.email}),
            await caller.delete(f"{address}/sessions"),
            await caller.delete(address),
        ):
            assert answer.status_code == 403, answer.text
    assert (await caller.post(users, json=new)).status_code == 201
    assert (await caller.patch(f"{users}/{user.id}", json={"full_name": "Grace"})).status_code == 200
    ranks = (await session.exec(select(User.role).where(col(User.id) != staff.id).order_by(col(User.id)))).all()
    assert sorted(ranks) == ["admin", "user", "user", "user", "user"]


@pytest.mark.parametrize("rank", ["user", "staff"])
async def test_routes_stay_closed_to_those_who_hold_no_such_role(
    make_user: MakeUser, client_for: ClientFor, rank: str
) -> None:
    user = await make_user(rank)
    caller = client_for(user)
    assert (await caller.get(URL)).status_code == (403 if rank == "user" else 200)
    assert (await caller.post(URL, json=DESK)).status_code == 403
    assert (await caller.put(f"/api/v1/users/{user.id}/roles", json={"roles": []})).status_code == 403


# --- demo data -----------------------------------------------------------------------------------------------------


async def test_demo_roles_are_added_once_and_name_declared_permissions(app: FastAPI, session: AsyncSession) -> None:
    advances: list[int] = []
    for _ in range(2):
        await session.run_sync(lambda sync: seed(sync, 5, advances.append))  # type: ignore[arg-type]
    roles = (await session.exec(select(Role).order_by(col(Role.name)))).all()
    assert [role.name for role in roles] == sorted(ROLES)
    assert all(role.names <= app.state.registry.permissions.keys() for role in roles)
    assert sum(advances) == len(ROLES)
