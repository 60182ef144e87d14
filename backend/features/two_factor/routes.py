"""/auth/totp: one's own second factor; and its removal by an administrator."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from backend.core.auth import InPerson, Principal, requires
from backend.core.db import Session, release
from backend.core.errors import Responses
from backend.core.limits import limit
from backend.core.schemas import Id
from backend.features.two_factor import qr, service
from backend.features.two_factor.permissions import RESET
from backend.features.two_factor.proof import taking_code
from backend.features.two_factor.schemas import (
    RecoveryCodes,
    TotpBegin,
    TotpCode,
    TotpDisable,
    TotpEnrolment,
    TotpOut,
)
from backend.features.users import service as users
from backend.features.users.models import User
from backend.features.users.sign_in import check_password

WRONG_CODE: Responses = {401: {"description": "The code is wrong, or was used"}}
WRONG_EITHER: Responses = {401: {"description": "The password or the code is wrong"}}

TRIES = limit("auth.totp", "60/minute", by="user", when_away="closed")

totp = APIRouter(prefix="/auth/totp", tags=["auth"])
others = APIRouter(prefix="/users", tags=["users"])


async def _myself(caller: InPerson, session: Session) -> User:
    """Who asks. The connection, and SQLite's write lock, are given back: what follows has sessions of its own."""
    user = await users.get_user(session, caller.id)
    await release(session)
    return user


Myself = Annotated[User, Depends(_myself)]


@totp.get("")
async def read_totp(caller: InPerson, session: Session) -> TotpOut:
    """Whether your second factor is on, and how many recovery codes are left."""
    return TotpOut.model_validate(await service.state_of(session, caller.id, caller.rank))


@totp.post(
    "",
    responses={401: {"description": "The password is wrong"}, 409: {"description": "Your second factor is on"}},
    dependencies=[TRIES],
)
async def begin_totp(body: TotpBegin, user: Myself, request: Request, response: Response) -> TotpEnrolment:
    """Begin with a second factor: the secret for your authenticator app. Confirm it with a code to switch it on."""
    database = request.app.state.database
    service.refuse_without_password(user)
    await check_password(database, email=user.email, password=body.password.get_secret_value())
    async with database.session() as session:
        secret, uri = await service.begin(session, user)
        await session.commit()
    response.headers["Cache-Control"] = "no-store"
    return TotpEnrolment(secret=secret, uri=uri, qr_svg=qr.svg(uri))


@totp.post(
    "/confirm",
    responses={**WRONG_CODE, 409: {"description": "There is nothing to confirm"}},
    dependencies=[TRIES],
)
async def confirm_totp(
    body: TotpCode, caller: InPerson, user: Myself, request: Request, response: Response
) -> RecoveryCodes:
    """Switch your second factor on with a code of the app. Answers with recovery codes: keep them in a safe place."""
    async with taking_code(request.app.state.database, user) as session:
        codes = await service.confirm(session, caller, body.code)
    response.headers["Cache-Control"] = "no-store"
    return RecoveryCodes(recovery_codes=codes)


@totp.post(
    "/recovery-codes",
    responses={**WRONG_CODE, 409: {"description": "Your second factor is off"}},
    dependencies=[TRIES],
)
async def renew_recovery_codes(
    body: TotpCode, caller: InPerson, user: Myself, request: Request, response: Response
) -> RecoveryCodes:
    """New recovery codes; the earlier ones stop working."""
    async with taking_code(request.app.state.database, user) as session:
        codes = await service.renew_recovery_codes(session, caller.id, body.code)
    response.headers["Cache-Control"] = "no-store"
    return RecoveryCodes(recovery_codes=codes)


@totp.post(
    "/disable",
    status_code=204,
    responses={**WRONG_EITHER, 409: {"description": "Your second factor is off, or it is required"}},
    dependencies=[TRIES],
)
async def disable_totp(body: TotpDisable, caller: InPerson, user: Myself, request: Request) -> None:
    """Switch your second factor off."""
    database = request.app.state.database
    service.refuse_without_password(user)
    await check_password(database, email=user.email, password=body.password.get_secret_value())
    async with taking_code(database, user) as session:
        await service.disable(session, caller, body.code)


@others.delete("/{user_id:int}/totp", status_code=204)
async def reset_totp(user_id: Id, session: Session, caller: Annotated[Principal, requires(RESET)]) -> None:
    """Remove the second factor of somebody who lost it. They are signed out everywhere."""
    await service.reset(session, caller, user_id)


router = APIRouter(routes=[*totp.routes, *others.routes])
