"""Actions on more records than one transaction should hold, whether or not a feature does them in the background."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import col, insert, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.console import AT_ONCE
from backend.core.console_actions import ConsoleActed, LongAction, StartsLongActions, acted
from backend.core.feature import Registry
from backend.core.models import utc_now
from backend.features.users.models import User
from backend.testing import Console, MakeUser

MANY = AT_ONCE + 1


async def fill(session: AsyncSession) -> None:
    shared = {"password_hash": "!", "role": "user", "is_active": True, "full_name": "", "version": 1}
    shared |= {"created_at": utc_now(), "updated_at": utc_now()}
    await session.exec(insert(User), params=[shared | {"email": f"bulk{n:04}@example.com"} for n in range(MANY)])
    await session.commit()


def console_state(app: FastAPI) -> Any:
    [mounted] = [route.app for route in app.router.routes if getattr(route, "path", "") == "/admin"]  # type: ignore[attr-defined]
    return mounted.state


@pytest.fixture
def doing(app: FastAPI) -> Iterator[Any]:
    """`doing(start)`: this is how long actions are begun; None: nobody does them."""
    state = console_state(app)
    registry: Registry = state.registry

    def by(start: StartsLongActions | None) -> None:
        others = tuple(replace(one, long_actions=None) for one in registry.features)
        state.registry = replace(registry, features=(replace(others[0], long_actions=start), *others[1:]))

    yield by
    state.registry = registry


async def test_without_a_feature_that_does_them_they_are_refused(
    console: Console, make_user: MakeUser, session: AsyncSession, doing: Any
) -> None:
    doing(None)
    browser = await console((await make_user("admin")).email)
    await fill(session)
    answer = await browser.post("/admin/user/action/deactivate", data={"matching": "1", "query": "search=bulk"})
    assert answer.status_code == 400
    assert "More than 1,000 records match. Narrow the list down first" in answer.text


async def test_who_does_them_is_told_what_was_asked_for(
    console: Console, make_user: MakeUser, session: AsyncSession, doing: Any
) -> None:
    begun: list[LongAction] = []

    async def start(request: httpx2.Request, asked: LongAction) -> str:
        begun.append(asked)
        return f"/begun/{len(begun)}"

    doing(start)
    browser = await console((await make_user("admin")).email)
    await fill(session)
    form = {"matching": "1", "query": "search=bulk&f_is_active=yes", "confirmed": "1"}
    answer = await browser.post("/admin/user/action/deactivate", data=form)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/begun/1")
    [last] = (await session.exec(select(User.id).where(User.email == f"bulk{AT_ONCE:04}@example.com"))).all()
    told = {"view": "user", "action": "deactivate", "label": "Deactivate users"}
    assert begun == [LongAction(**told, query="search=bulk&f_is_active=yes", total=MANY, up_to=last or 0)]

    form |= {"up_to": str((last or 0) - AT_ONCE + 2)}  # of which there are few enough for one transaction
    answer = await browser.post("/admin/user/action/deactivate", data=form)
    assert answer.headers["Location"] == "http://localhost/admin/user/list?search=bulk&f_is_active=yes"
    gone = (await session.exec(select(User.email).where(~col(User.is_active)).order_by(User.email))).all()
    assert gone == ["bulk0000@example.com", "bulk0001@example.com", "bulk0002@example.com"]


@pytest.mark.parametrize("up_to", ["x", "0", "-1", "99999999999"])
async def test_a_key_that_is_none_is_refused(console: Console, make_user: MakeUser, up_to: str) -> None:
    browser = await console((await make_user("admin")).email)
    form = {"matching": "1", "query": "", "up_to": up_to}
    assert (await browser.post("/admin/user/action/deactivate", data=form)).status_code == 404


def test_ids_are_told_in_pieces_that_the_audit_log_keeps_whole() -> None:
    ids = range(2_000_000_000, 2_000_000_000 + AT_ONCE)
    pieces: list[ConsoleActed] = list(acted("user", "deactivate", ids))
    assert [one for piece in pieces for one in piece.ids] == list(ids)
    assert all(len(str(list(piece.ids))) <= 1000 for piece in pieces)
