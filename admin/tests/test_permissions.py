"""The menu, the buttons, the pages and the actions all obey the same permissions: each alone is tried on each view."""

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.console import ConsoleView
from backend.core.principals import forget_all
from backend.features.users.events import PermissionsAsked
from backend.features.users.permissions import CONSOLE
from backend.testing import Console, MakeUser

NOBODY = 2147483647
PAGES = {"create": "create", "edit": f"edit/{NOBODY}", "view": f"details/{NOBODY}"}


def views(app: FastAPI) -> Iterator[type[ConsoleView]]:
    for feature in app.state.registry.features:
        yield from (view for view in feature.admin if issubclass(view, ConsoleView))


@pytest.fixture
def held(app: FastAPI) -> Iterator[set[str]]:
    """What everybody may do meanwhile, which the test changes."""
    may: set[str] = set()

    async def only_these(_session: AsyncSession, asked: PermissionsAsked) -> None:
        asked.held.clear()
        asked.held.update(may)

    handlers = app.state.database.info["handlers"]
    app.state.database.info["handlers"] = handlers | {PermissionsAsked: (only_these,)}
    yield may
    app.state.database.info["handlers"] = handlers


async def open_to(browser: httpx2.AsyncClient, view: type[ConsoleView]) -> set[str]:
    """What the pages of a view let somebody do, by trying."""
    base = f"/admin/{view.identity}"
    found = set()
    for verb, address in PAGES.items():
        answer = await browser.get(f"{base}/{address}")
        assert answer.status_code in (200, 403, 404), answer.text
        if answer.status_code == 200 or (answer.status_code == 404 and verb != "create"):
            found.add(verb)
    for name in view.actions:
        answer = await browser.post(f"{base}/action/{name}")
        assert answer.status_code in (400, 403), answer.text
        if answer.status_code == 400:  # nothing was selected
            found.add(name)
    listed = await browser.get(f"{base}/list")
    if listed.status_code == 200 and "You are not permitted to see these records" not in listed.text:
        found.add("list")
    offered = set(re.findall(rf"{base}/(create|edit|action/\w+)", listed.text))
    assert {one.removeprefix("action/") for one in offered} <= found, "a button that leads to a refusal"
    assert not view.can_create or ("create" in offered) == ("create" in found)
    return found


async def test_each_permission_opens_its_own_door_only(
    app: FastAPI, held: set[str], console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    held.add(CONSOLE)
    browser = await console((await make_user("user")).email)

    async def allow(*names: str) -> None:
        held.clear()
        held.update({CONSOLE, *names})
        forget_all(session)
        await session.commit()

    for view in views(app):
        verbs = [one.name.removeprefix(f"{view.scope}:") for one in view.permissions()]
        for verb in set(verbs) & {"list", "view", "create", "edit", *view.actions}:
            await allow(f"{view.scope}:{verb}")
            assert await open_to(browser, view) == ({"list", "view"} if verb == "view" else {verb}), (view, verb)
            home: Any = (await browser.get("/admin/")).text
            assert set(re.findall(r"/admin/([\w-]+)/list", home)) == {view.identity}
    await allow()
    assert re.findall(r"/admin/[\w-]+/list", (await browser.get("/admin/")).text) == []
