"""The link's page, and the same for programs. Opening the page changes nothing: mail scanners open every link."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel, Field

from backend.core.db import Session
from backend.core.errors import AppError, Forbidden, Responses
from backend.core.limits import limit
from backend.core.mailer import Mailer
from backend.core.same_origin import same_origin
from backend.core.schemas import Input
from backend.core.templates import pages as pages_in
from backend.features.email_verification.service import TEMPLATES, mail_again, verify
from backend.features.users.schemas import Email

TOKEN_MAX = 200  # characters
USELESS: Responses = {400: {"description": "The link is expired, was used already, or is for an earlier address"}}
# `same-origin` and not `no-referrer`: that would make the form's Origin null. The address holds the token.
HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "same-origin"}

api = APIRouter(prefix="/auth", tags=["auth"])
REQUEST = limit("auth.verify_email", "100/hour", by="ip")
pages = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
templates = pages_in(TEMPLATES)


class EmailToken(Input):
    """What the link in the mail carries."""

    token: str = Field(max_length=TOKEN_MAX, examples=["Jx0Yp3Zb1c4o9m5N7qKf2sWvR8tUaEdGhLiBnMzXyQw"])


class VerificationRequest(Input):
    """The address to verify."""

    email: Email


class VerificationRequested(BaseModel):
    """The same for every address."""

    message: str = Field("If this address is to be verified, a mail is on its way", examples=["A mail is on its way"])


@api.post("/verify-email", status_code=204, responses=USELESS)
async def verify_email(body: EmailToken, session: Session) -> None:
    """Verify an e-mail address with the token of the mail's link, once.

    Public: the token says whose address it is.
    """
    await verify(session, body.token)


@api.post("/verify-email/request", status_code=202, dependencies=[REQUEST])
async def request_verification(body: VerificationRequest, request: Request) -> VerificationRequested:
    """Ask for another mail; one a minute at most. The answer does not tell whether there is such an account.

    Public: who has not verified their address may be unable to sign in.
    """
    mailer: Mailer = request.app.state.mailer
    database, email, base_url = request.app.state.database, body.email, mailer.public_url()
    mailer.do(lambda: mail_again(database, email, base_url))
    return VerificationRequested()


@pages.api_route("/verify-email", methods=["GET", "HEAD"])
async def verification_page(request: Request, token: str = "") -> Response:
    """A button that verifies the address.

    Public: it opens from a mail.
    """
    return templates.TemplateResponse(request, "verify.html", {"token": token}, headers=HEADERS)


@pages.post("/verify-email")
async def verify_by_form(request: Request, session: Session, token: Annotated[str, Form()] = "") -> Response:
    """Verify the address, then show that it is.

    Public: the token says whose address it is.
    """
    try:
        if not same_origin(request.headers):
            raise Forbidden("This request did not come from our page")
        await verify(session, token)
    except AppError as refusal:
        await session.rollback()
        return templates.TemplateResponse(
            request, "failed.html", {"problem": refusal.text}, status_code=refusal.status, headers=HEADERS
        )
    return RedirectResponse(f"{request.scope['root_path']}/verify-email/done", status_code=303)


@pages.api_route("/verify-email/done", methods=["GET", "HEAD"])
async def verification_done(request: Request) -> Response:
    """That it worked. An address of its own, so that loading it again does not use the token again.

    Public: it says nothing about anybody.
    """
    return templates.TemplateResponse(request, "done.html", headers=HEADERS)
