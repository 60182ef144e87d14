"""What those who listen are told, such as a log of who did what."""

from collections.abc import Callable

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.events import SecurityEvent
from backend.features.two_factor.tests.enrolment import TOTP, enrol
from backend.testing import PASSWORD, ClientFor, MakeUser

TOKEN = "/api/v1/auth/token"
Told = Callable[[], list[tuple[str, dict[str, object]]]]


@pytest.fixture
def told(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Told:
    """What happened since it was last asked: the actions and what is said of them."""
    heard: list[SecurityEvent] = []

    async def note(_session: AsyncSession, event: SecurityEvent) -> None:
        heard.append(event)

    info = app.state.database.info
    listening = {**info["handlers"], SecurityEvent: (*info["handlers"].get(SecurityEvent, ()), note)}
    monkeypatch.setitem(info, "handlers", listening)

    def take() -> list[tuple[str, dict[str, object]]]:
        said = [(event.action, event.details()) for event in heard]
        heard.clear()
        return said

    return take


async def test_all_that_happens_is_told_without_secrets(
    make_user: MakeUser, client_for: ClientFor, as_admin: httpx2.AsyncClient, told: Told
) -> None:
    user = await make_user()
    mine = client_for(user)
    phone, recovery = await enrol(mine)
    assert told() == [("second_factor.enabled", {})]
    await mine.post(f"{TOTP}/recovery-codes", json={"code": recovery[0]})
    assert told() == [("recovery_code.used", {"left": 9}), ("recovery_codes.renewed", {})]
    await mine.post(f"{TOTP}/disable", json={"password": PASSWORD, "code": phone.soon})
    assert told() == [("second_factor.disabled", {})]
    await enrol(mine)
    told()
    await as_admin.delete(f"/api/v1/users/{user.id}/totp")
    assert [action for action, _ in told()] == ["second_factor.reset", "sessions.ended"]


@pytest.mark.parametrize("path", ["confirm", "recovery-codes", "disable"])
async def test_wrong_codes_count_as_failed_sign_ins(
    make_user: MakeUser, client_for: ClientFor, told: Told, path: str
) -> None:
    """So that whoever slows those down slows these down too."""
    user = await make_user()
    mine = client_for(user)
    if path == "confirm":
        await mine.post(TOTP, json={"password": PASSWORD})
    else:
        await enrol(mine)
    told()
    body = {"code": "no-code", **({"password": PASSWORD} if path == "disable" else {})}
    assert (await mine.post(f"{TOTP}/{path}", json=body)).status_code == 401
    assert told() == [("sign_in.failed", {"email": user.email, "reason": "wrong_code"})]


async def test_a_wrong_code_at_the_sign_in_is_a_failed_one_and_a_missing_one_is_not(
    client: httpx2.AsyncClient, make_user: MakeUser, client_for: ClientFor, told: Told
) -> None:
    user = await make_user()
    phone, _ = await enrol(client_for(user))
    told()
    await client.post(TOKEN, data={"username": user.email, "password": PASSWORD})
    assert told() == []
    await client.post(TOKEN, data={"username": user.email, "password": PASSWORD, "code": phone.wrong})
    assert told() == [("sign_in.failed", {"email": user.email, "reason": "wrong_code"})]
