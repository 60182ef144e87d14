"""Roles in the console, and the console for those who may enter it by a role."""

import html
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.console import ConsoleView
from backend.features.roles.admin import RoleHolderView, RoleView
from backend.features.roles.models import Role, RolePermission, UserRole
from backend.features.users.admin import UserView
from backend.features.users.models import User
from backend.testing import PASSWORD, Console, MakeUser, act

Browser = httpx2.AsyncClient
WithRole = Callable[..., Awaitable[User]]

ROLES, HOLDERS = "/admin/role", "/admin/user-role"


async def store_role(session: AsyncSession, name: str, *permissions: str) -> int:
    role = Role(name=name, permissions=[RolePermission(permission=one) for one in permissions])
    session.add(role)
    await session.commit()
    return role.id or 0


async def give(session: AsyncSession, user: User, role_id: int) -> None:
    session.add(UserRole(user_id=user.id or 0, role_id=role_id))
    await session.commit()


@pytest.fixture
async def browser(console: Console, make_user: MakeUser) -> Browser:
    """An administrator's."""
    return await console((await make_user("admin")).email)


async def permissions_of(session: AsyncSession, name: str) -> list[str]:
    session.expire_all()
    role = (await session.exec(select(Role).where(Role.name == name))).one()
    return sorted(role.names)


def form_of(page: httpx2.Response, *fields: str) -> dict[str, str]:
    """The values of these hidden fields."""
    return {one: page.text.split(f'name="{one}"')[1].split('value="')[1].split('"')[0] for one in fields}


async def test_a_role_is_made_edited_and_deleted(browser: Browser, session: AsyncSession) -> None:
    page = await browser.get(f"{ROLES}/create")
    assert "See all accounts and their sessions" in page.text
    data: dict[str, Any] = {"name": "Desk", "summary": "Looks", "permissions": ["console:enter", "users:read"]}
    assert (await browser.post(f"{ROLES}/create", data=data)).status_code == 302
    assert await permissions_of(session, "Desk") == ["console:enter", "users:read"]
    listed = await browser.get(f"{ROLES}/list")
    assert "console:enter, users:read" in listed.text

    role = (await session.exec(select(Role))).one()
    edit = await browser.get(f"{ROLES}/edit/{role.id}")
    assert edit.text.count(" checked") == 2
    data |= {"permissions": ["roles:read"], **form_of(edit, "version")}
    assert (await browser.post(f"{ROLES}/edit/{role.id}", data=data)).status_code == 302
    assert await permissions_of(session, "Desk") == ["roles:read"]
    stale = await browser.post(f"{ROLES}/edit/{role.id}", data={**data, "permissions": []})
    assert "Somebody else changed this record" in stale.text
    assert (await act(browser, "role", "delete", role.id)).status_code == 303
    assert (await session.exec(select(Role.id))).all() == []


async def test_what_no_feature_declares_stays_ticked_and_says_so(browser: Browser, session: AsyncSession) -> None:
    role = await store_role(session, "Astronaut", "moon:land", "users:read")
    page = await browser.get(f"{ROLES}/edit/{role}")
    assert 'value="moon:land" checked' in page.text
    assert "it permits nothing" in page.text
    data = {"name": "Cosmonaut", "permissions": ["moon:land", "users:read"]}
    assert (await browser.post(f"{ROLES}/edit/{role}", data=data)).status_code == 302
    assert await permissions_of(session, "Cosmonaut") == ["moon:land", "users:read"]


async def test_mistakes_are_said_on_the_form(browser: Browser, session: AsyncSession) -> None:
    await store_role(session, "Taken")
    for data, sentence in (
        ({"name": "Taken"}, "There is a role with this name already"),
        ({"name": "Wide", "permissions": ["moon:land"]}, "There is no permission moon:land"),
        ({"name": ""}, "This field is required"),
        ({"name": "x" * 101}, "at most 100"),
    ):
        page = await browser.post(f"{ROLES}/create", data=data)
        assert page.status_code == 400
        assert sentence in html.unescape(page.text)


async def test_a_role_is_given_by_address_and_taken_again(
    browser: Browser, make_user: MakeUser, session: AsyncSession
) -> None:
    user, role = await make_user(email="ada@example.com"), await store_role(session, "Desk", "users:read")
    assert ">Desk</option>" in (await browser.get(f"{HOLDERS}/create")).text
    data = {"role_id": str(role), "user_id": " Ada@Example.com "}
    assert (await browser.post(f"{HOLDERS}/create", data=data)).status_code == 302
    held = (await session.exec(select(UserRole))).one()
    assert (held.user_id, held.role_id) == (user.id, role)
    again = await browser.post(f"{HOLDERS}/create", data=data)
    assert "This person holds this role already" in again.text
    nobody = await browser.post(f"{HOLDERS}/create", data={**data, "user_id": "nobody@example.com"})
    assert "There is no record, or not only one, of this name" in nobody.text
    gone = await browser.post(f"{HOLDERS}/create", data={**data, "user_id": "2000000000"})
    assert "There is no such" in gone.text
    assert (await act(browser, "user-role", "delete", held.id)).status_code == 303
    assert (await session.exec(select(UserRole.id))).all() == []


async def test_the_person_is_looked_up_by_who_may_see_accounts(
    browser: Browser, console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    ada = await make_user(email="ada@example.com")
    form = await browser.get(f"{HOLDERS}/create?user_id={ada.id}")
    assert f'value="ada@example.com ({ada.id})"' in form.text
    assert 'data-lookup="http://localhost/admin/user/lookup"' in form.text
    assert '<datalist id="user_id-suggestions">' in form.text
    role = await store_role(session, "Desk", "console:enter", "role_holders:list", "role_holders:create")
    data = {"role_id": str(role), "user_id": f"ada@example.com ({ada.id})"}
    assert (await browser.post(f"{HOLDERS}/create", data=data)).status_code == 302
    holder = await console(ada.email)
    assert (await holder.get("/admin/user/lookup?q=ada")).status_code == 403
    hidden = await holder.get(f"{HOLDERS}/create?user_id={ada.id}")
    assert f'value="{ada.id}"' in hidden.text
    again = await browser.post(f"{HOLDERS}/create", data={**data, "user_id": f"eve@example.com ({ada.id})"})
    assert "There is no record, or not only one, of this name" in again.text


async def test_holders_are_found_by_address_and_by_role(
    browser: Browser, make_user: MakeUser, session: AsyncSession
) -> None:
    for name, address in (("Desk", "ada@example.com"), ("Chair", "grace@example.com")):
        await give(session, await make_user(email=address), await store_role(session, name))
    for term, found, other in (("ada@", "ada", "grace"), ("chair", "grace", "ada")):
        page = await browser.get(f"{HOLDERS}/list", params={"search": term})
        assert f"{found}@example.com" in page.text
        assert f"{other}@example.com" not in page.text
    page = await browser.get(f"{HOLDERS}/list", params={"sortBy": "email", "sort": "desc"})
    assert page.text.index("grace@") < page.text.index("ada@")


async def test_a_list_costs_the_same_with_many_rows(
    browser: Browser, make_user: MakeUser, session: AsyncSession, statements: Callable[..., Any]
) -> None:
    counts: dict[str, list[int]] = {ROLES: [], HOLDERS: []}
    for number in range(3):
        await give(session, await make_user(), await store_role(session, f"Role {number}", "users:read"))
        await browser.get("/admin/")  # who is signed in is known from here on
        for view, seen in counts.items():
            with statements() as these:
                assert (await browser.get(f"{view}/list")).status_code == 200
            seen.append(len(these))
    assert all(len(set(seen)) == 1 for seen in counts.values()), counts


# --- by a role -----------------------------------------------------------------------------------------------------


async def test_who_may_enter_by_a_role_sees_only_what_it_permits(
    app: FastAPI, console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    user, closed = await make_user(), await make_user()
    await give(session, user, await store_role(session, "Desk", "console:enter", "users:view", "sessions:list"))
    await give(session, closed, await store_role(session, "Reader", "users:view"))
    refused = await console(closed.email, None)
    assert (
        await refused.post("/admin/login", data={"username": closed.email, "password": PASSWORD})
    ).status_code == 400

    browser = await console(user.email)
    declared = [view for feature in app.state.registry.features for view in feature.admin]
    views = {view.identity: view for view in declared if issubclass(view, ConsoleView)}
    seen = {name for name in views if (await browser.get(f"/admin/{name}/list")).status_code == 200}
    assert seen == {name for name, view in views.items() if view.scope in ("users", "sessions")}
    for name in views.keys() - seen:
        assert (await browser.get(f"/admin/{name}/list")).status_code == 403
    home = (await browser.get("/admin/")).text
    assert {name for name in views if f"/admin/{name}/list" in home} == seen
    for address in ("/admin/user/create", f"/admin/user/edit/{user.id}", f"{ROLES}/create", f"{HOLDERS}/create"):
        assert (await browser.get(address)).status_code == 403


async def test_the_console_closes_with_the_role(console: Console, make_user: MakeUser, session: AsyncSession) -> None:
    user, role = await make_user(), await store_role(session, "Desk", "console:enter")
    await give(session, user, role)
    browser = await console(user.email)
    assert (await browser.get("/admin/")).status_code == 200
    admin = await console((await make_user("admin")).email)
    assert (await act(admin, "role", "delete", role)).status_code == 303
    assert (await browser.get("/admin/")).status_code in (302, 303)


async def test_nobody_rises_in_the_console(console: Console, make_user: MakeUser, session: AsyncSession) -> None:
    user, victim, other = await make_user(), await make_user("admin"), await make_user()
    offered = (*UserView.permissions(), *RoleHolderView.permissions())
    mine = ("console:enter", "roles:read", "roles:write", *(one.name for one in offered))
    deputy = await store_role(session, "Deputy", *mine)
    strong = await store_role(session, "Strong", "moon:land")
    await give(session, user, deputy)
    browser = await console(user.email)
    account = {"full_name": "", "is_active": "y", "password": ""}
    attempts = [
        ("/admin/user/create", {**account, "email": "new@example.com", "role": "admin", "password": "Nautilus-1954-x"}),
        (f"/admin/user/edit/{user.id}", {**account, "email": user.email, "role": "admin"}),
        (f"/admin/user/edit/{other.id}", {**account, "email": other.email, "role": "staff"}),
        (
            f"/admin/user/edit/{victim.id}",
            {**account, "email": victim.email, "role": "admin", "password": "Mine-1954-x"},
        ),
        (f"{HOLDERS}/create", {"role_id": str(strong), "user_id": user.email}),
        (f"{HOLDERS}/create", {"role_id": str(deputy), "user_id": victim.email}),
    ]
    for address, data in attempts:
        page = await browser.post(address, data=data)
        assert page.status_code == 400, address
        assert any(
            sentence in page.text for sentence in ("above your own", "may do more than you", "you do not hold yourself")
        ), address
    data = {"role_id": str(deputy), "user_id": other.email}
    assert (await browser.post(f"{HOLDERS}/create", data=data)).status_code == 302


async def test_a_role_in_the_console_holds_no_more_than_its_maker(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    user = await make_user()
    mine = sorted(["console:enter", *(one.name for one in RoleView.permissions())])
    role = await store_role(session, "Keeper", *mine)
    strong = await store_role(session, "Strong", "users:write")
    await give(session, user, role)
    browser = await console(user.email)
    for address, data in (
        (f"{ROLES}/create", {"name": "More", "permissions": ["users:write"]}),
        (f"{ROLES}/edit/{role}", {"name": "Keeper", "permissions": [*mine, "users:write"]}),
        (f"{ROLES}/edit/{strong}", {"name": "Weak", "permissions": []}),
    ):
        page = await browser.post(address, data=data)
        assert page.status_code == 400
        assert "you do not hold yourself" in page.text
    assert (await act(browser, "role", "delete", strong)).status_code == 403
    assert await permissions_of(session, "Keeper") == mine
