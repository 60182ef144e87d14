"""API keys in the console: seen and revoked, never made."""

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.models import key_of, utc_now
from backend.features.api_keys.models import ApiKey
from backend.features.users.models import User
from backend.features.users.tokens import sha256
from backend.testing import Console, MakeUser, act, new_client

pytestmark = pytest.mark.usefixtures("uses")

KEY = "mk_AbC12345_" + "x" * 43


async def stored(session: AsyncSession, owner: User) -> ApiKey:
    key = ApiKey(
        user_id=key_of(owner),
        name="Import",
        prefix=KEY[:11],
        key_hash=sha256(KEY),
        scopes="users:read",
        expires_at=None,
    )
    session.add(key)
    await session.commit()
    return key


async def me(app: FastAPI) -> httpx2.Response:
    async with new_client(app, headers={"X-API-Key": KEY}) as service:
        return await service.get("/api/v1/auth/me")


async def test_the_list_shows_what_tells_keys_apart_and_no_hash(
    console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    admin = await make_user("admin")
    key = await stored(session, await make_user())
    browser = await console(admin.email)
    for page in ("list", f"details/{key.id}"):
        answer = await browser.get(f"/admin/api-key/{page}")
        assert answer.status_code == 200
        assert key.prefix in answer.text
        assert "users:read" in answer.text
        assert key.key_hash not in answer.text
    assert (await browser.get("/admin/api-key/create")).status_code == 403
    assert (await browser.get(f"/admin/api-key/edit/{key.id}")).status_code == 403


async def test_deleting_one_revokes_it(
    app: FastAPI, console: Console, make_user: MakeUser, session: AsyncSession
) -> None:
    admin = await make_user("admin")
    key = await stored(session, await make_user())
    browser = await console(admin.email)
    assert (await me(app)).status_code == 200
    answer = await act(browser, "api-key", "delete", key.id)
    assert answer.status_code == 303, answer.text
    assert (await me(app)).status_code == 401
    await session.refresh(key)
    assert key.revoked_at
    assert key.revoked_at <= utc_now()


async def test_staff_see_no_keys(console: Console, make_user: MakeUser) -> None:
    browser = await console((await make_user("staff")).email)
    assert (await browser.get("/admin/api-key/list")).status_code == 403
