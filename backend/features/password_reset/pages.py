"""Forgotten passwords, for people: pages that work without JavaScript."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import SecretStr, TypeAdapter, ValidationError

from backend.core.db import Session
from backend.core.errors import AppError, Forbidden, Unprocessable
from backend.core.same_origin import same_origin
from backend.core.templates import pages as pages_in
from backend.features.password_reset.service import TEMPLATES, reset, whose
from backend.features.users.one_time import UselessToken
from backend.features.users.schemas import PASSWORD_MAX, Password
from backend.features.users.settings import UsersSettings

# `same-origin` and not `no-referrer`: that would make the form's Origin null. The address holds the token.
HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "same-origin"}
PASSWORD: TypeAdapter[SecretStr] = TypeAdapter(Password)

pages = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
templates = pages_in(TEMPLATES)


def _form(request: Request, token: str, email: str, refusal: AppError | None = None) -> Response:
    values = {
        "token": token,
        "email": email,
        "problem": refusal.text if refusal else "",
        "shortest": UsersSettings.current().password_min_length,
        "longest": PASSWORD_MAX,
    }
    status = refusal.status if refusal else 200
    return templates.TemplateResponse(request, "reset.html", values, status_code=status, headers=HEADERS)


def _failed(request: Request, refusal: AppError) -> Response:
    values = {"problem": refusal.text}
    return templates.TemplateResponse(request, "failed.html", values, status_code=refusal.status, headers=HEADERS)


def _acceptable(password: str, repeated: str) -> str:
    if password != repeated:
        raise Unprocessable("The two passwords differ")
    try:
        return PASSWORD.validate_python(password).get_secret_value()
    except ValidationError as invalid:
        raise Unprocessable(invalid.errors()[0]["msg"].removeprefix("Value error, ")) from None


@pages.api_route("/reset-password", methods=["GET", "HEAD"])
async def reset_page(request: Request, session: Session, token: str = "") -> Response:
    """A form for the new password, or why the link is no good. Opening it does not use the link up.

    Public: it opens from a mail.
    """
    try:
        user = await whose(session, token)
    except UselessToken as refusal:
        return _failed(request, refusal)
    return _form(request, token, user.email)


@pages.post("/reset-password")
async def reset_by_form(
    request: Request,
    session: Session,
    token: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    repeated: Annotated[str, Form()] = "",
) -> Response:
    """Set the new password, then show that it is.

    Public: the token says whose password it is.
    """
    email = ""
    try:
        if not same_origin(request.headers):
            raise Forbidden("This request did not come from our page")
        email = (await whose(session, token)).email
        await reset(session, token, _acceptable(password, repeated))
    except Unprocessable as refusal:
        return _form(request, token, email, refusal)
    except AppError as refusal:
        await session.rollback()
        return _failed(request, refusal)
    return RedirectResponse(f"{request.scope['root_path']}/reset-password/done", status_code=303)


@pages.api_route("/reset-password/done", methods=["GET", "HEAD"])
async def reset_done(request: Request) -> Response:
    """That it worked.

    Public: it says nothing about anybody.
    """
    return templates.TemplateResponse(request, "done.html", headers=HEADERS)
