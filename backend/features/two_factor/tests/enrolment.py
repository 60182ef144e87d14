"""What the tests of second factors share: an authenticator app, and people who have one."""

import time
from dataclasses import dataclass

import httpx2
import pyotp
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.features.two_factor.models import TotpSecret
from backend.testing import PASSWORD

TOTP = "/api/v1/auth/totp"


@dataclass
class Phone:
    """An authenticator app. At the edge of a step `now` is good for a step more, and `soon` is good already."""

    secret: str

    def at(self, seconds: float) -> str:
        return pyotp.TOTP(self.secret).at(int(time.time() + seconds))

    @property
    def now(self) -> str:
        return self.at(0)

    @property
    def soon(self) -> str:
        """Of the next step: good although the present one was used."""
        return self.at(30)

    @property
    def wrong(self) -> str:
        """No code of any step around."""
        taken = {self.at(30 * step) for step in range(-3, 4)}
        return next(code for code in map("{:06}".format, range(10)) if code not in taken)


async def begin(client: httpx2.AsyncClient) -> Phone:
    answer = await client.post(TOTP, json={"password": PASSWORD})
    assert answer.status_code == 200, answer.text
    return Phone(answer.json()["secret"])


async def enrol(client: httpx2.AsyncClient) -> tuple[Phone, list[str]]:
    """A phone, whose code of the present step is used up, and recovery codes."""
    phone = await begin(client)
    answer = await client.post(f"{TOTP}/confirm", json={"code": phone.now})
    assert answer.status_code == 200, answer.text
    return phone, answer.json()["recovery_codes"]


async def forget_use(session: AsyncSession, user_id: int | None) -> None:
    """As if time had passed: codes of all steps around are good again."""
    await session.exec(update(TotpSecret).where(col(TotpSecret.user_id) == user_id).values(last_used_step=0))
    await session.commit()


async def stored(session: AsyncSession, user_id: int | None) -> TotpSecret:
    statement = select(TotpSecret).where(TotpSecret.user_id == user_id).execution_options(populate_existing=True)
    return (await session.exec(statement)).one()
