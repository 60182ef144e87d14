"""Forgotten passwords, for programs."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from backend.core import context
from backend.core.db import Session
from backend.core.errors import Responses
from backend.core.limits import limit
from backend.core.mailer import Mailer
from backend.core.schemas import Input
from backend.features.password_reset.service import mail_link, reset
from backend.features.users.schemas import Email, Password

TOKEN_MAX = 200  # characters
USELESS: Responses = {400: {"description": "The link is expired, was used already, or is not one of ours"}}

api = APIRouter(prefix="/auth", tags=["auth"])
REQUEST = limit("auth.password_reset", "100/hour", by="ip", when_away="closed")


class ResetRequest(Input):
    """The address of the account."""

    email: Email


class ResetRequested(BaseModel):
    """The same for every address."""

    message: str = Field("If there is an account with this address, a mail is on its way", examples=["A mail is sent"])


class NewPassword(Input):
    """What the link in the mail carries, and the password to set."""

    token: str = Field(max_length=TOKEN_MAX, examples=["Jx0Yp3Zb1c4o9m5N7qKf2sWvR8tUaEdGhLiBnMzXyQw"])
    new_password: Password


def ask(request: Request, email: str) -> None:
    """Have a link mailed, apart from the request: its time does not tell whether there is such an account."""
    mailer: Mailer = request.app.state.mailer
    database, base_url, address = request.app.state.database, mailer.public_url(), context.address()
    mailer.do(lambda: mail_link(database, email, base_url=base_url, address=address))


@api.post("/password-reset/request", status_code=202, dependencies=[REQUEST])
async def request_password_reset(body: ResetRequest, request: Request) -> ResetRequested:
    """Ask for a link to a new password by mail; one a minute at most. The answer is the same for every address.

    Public: who forgot their password cannot sign in.
    """
    ask(request, body.email)
    return ResetRequested()


@api.post("/password-reset", status_code=204, responses=USELESS)
async def reset_password(body: NewPassword, session: Session) -> None:
    """Set a new password with the token of the mail's link, once. Signs out everywhere.

    Public: the token says whose password it is.
    """
    await reset(session, body.token, body.new_password.get_secret_value())
