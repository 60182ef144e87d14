"""Sign-up, tokens, one's own profile, password and sessions."""

from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.security import OAuth2PasswordRequestForm
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Caller, InPerson, Principal
from backend.core.cache import cached
from backend.core.db import Session, release
from backend.core.errors import Forbidden, Responses, Unauthorized
from backend.core.limits import limit
from backend.core.preconditions import etag
from backend.core.read_session import ReadSession
from backend.core.same_origin import same_origin
from backend.core.schemas import Id
from backend.features.users import service, sessions
from backend.features.users.models import User
from backend.features.users.schemas import (
    PASSWORD_EXAMPLE,
    Me,
    PasswordChange,
    ProfilePatch,
    RefreshRequest,
    SecondStep,
    SessionOut,
    Signup,
    Token,
    UserOut,
)
from backend.features.users.settings import UsersSettings
from backend.features.users.sign_in import check_password, completed, proven

COOKIE = "refresh_token"
CREATED: Responses = {409: {"description": "The e-mail address is taken"}}

auth = APIRouter(prefix="/auth", tags=["auth"])

# Per address, and an office may have one. Guessing is slowed elsewhere; these bound what hashing and mailing cost.
SIGN_UP = limit("auth.signup", "100/hour", by="ip", when_away="closed")
SIGN_IN = limit("auth.token", "120/minute", by="ip", when_away="closed")
SECOND_STEP = limit("auth.second_factor", "120/minute", by="ip", when_away="closed")
REFRESH = limit("auth.refresh", "600/minute", by="ip")


def shown(user: User, response: Response) -> UserOut:
    """An account as others see it, with its `ETag`."""
    response.headers["ETag"] = etag(user.version, UserOut)
    return UserOut.model_validate(user)


@auth.post(
    "/signup",
    status_code=201,
    responses={**CREATED, 403: {"description": "Sign-up is closed"}},
    dependencies=[SIGN_UP],
)
async def signup(body: Signup, session: Session, response: Response) -> UserOut:
    """Create an account for yourself.

    Public: a stranger has no account yet. `USERS__SIGNUP_OPEN=false` closes it.
    """
    if not UsersSettings.current().signup_open:
        raise Forbidden("Sign-up is closed; ask an administrator for an account")
    user = await service.create_user(
        session, email=body.email, password=body.password.get_secret_value(), full_name=body.full_name
    )
    return shown(user, response)


def _cookie(request: Request) -> dict[str, Any]:
    secure = request.app.state.settings.environment != "development"
    path = f"{request.scope.get('root_path', '')}/api"
    return {"key": COOKIE, "path": path, "httponly": True, "samesite": "strict", "secure": secure}


def as_answer(request: Request, response: Response, opened: sessions.Opened, *, by_cookie: bool) -> Token:
    """The tokens of a sign-in or a refresh, with the refresh token in the body or in a cookie."""
    rules = UsersSettings.current()
    response.headers["Cache-Control"] = "no-store"  # RFC 6749 §5.1
    lifetime = int(timedelta(days=rules.refresh_idle_days).total_seconds())
    if by_cookie:
        response.set_cookie(value=opened.refresh_token, max_age=lifetime, **_cookie(request))
    return Token(
        access_token=opened.access_token,
        expires_in=rules.access_token_minutes * 60,
        refresh_token=None if by_cookie else opened.refresh_token,
        refresh_expires_in=lifetime,
        scope=" ".join(sorted(opened.scopes)),
    )


def _refuse_foreign_pages(request: Request, *, by_cookie: bool) -> None:
    """What reads or sets the cookie comes from our own pages: another site's would sign people in as somebody else."""
    named = request.headers.get("origin", "") in UsersSettings.current().browser_origins
    if by_cookie and not (named or same_origin(request.headers)):
        raise Forbidden("This request did not come from one of our pages")


async def _end_replaced(request: Request, session: AsyncSession, *, by_cookie: bool) -> None:
    """Signing in again in a page replaces its cookie: the session of the one before would be left without an owner."""
    if by_cookie and (cookie := request.cookies.get(COOKIE)):
        await sessions.end_of_refresh_token(session, cookie, reason="signed in again")


# FastAPI's form has no examples of its own.
TOKEN_FORM = {"example": {"grant_type": "password", "username": "ada@example.com", "password": PASSWORD_EXAMPLE}}
FORM = {"requestBody": {"content": {"application/x-www-form-urlencoded": TOKEN_FORM}}}


@auth.post(
    "/token",
    responses={401: {"description": "Wrong e-mail address or password, or a code is asked for"}},
    openapi_extra=FORM,
    dependencies=[SIGN_IN],
)
async def create_token(
    form: Annotated[OAuth2PasswordRequestForm, Depends()],
    request: Request,
    response: Response,
    code: Annotated[str, Form(max_length=64, description="Of the second factor, if you have one")] = "",
    # a pattern, as OpenAPI Generator's TypeScript would declare an enum of both versions twice
    refresh_by: Annotated[
        str, Form(pattern="^(body|cookie)$", description="`body`, or `cookie` for pages, which no script sees")
    ] = "body",
) -> Token:
    """Sign in for an access token. E-mail address (as `username`) and password, by the OAuth2 password grant.

    Name scopes to get a token that may do less than you. Public: this is how callers become known.
    """
    _refuse_foreign_pages(request, by_cookie=refresh_by == "cookie")
    database, settings = request.app.state.database, request.app.state.settings
    user = await check_password(database, email=form.username, password=form.password)
    async with proven(database, user, method="password", code=code) as session:
        opened = await sessions.open_for_tokens(session, settings, user, method="password", scopes=form.scopes)
        await _end_replaced(request, session, by_cookie=refresh_by == "cookie")
    return as_answer(request, response, opened, by_cookie=refresh_by == "cookie")


@auth.post(
    "/second-factor",
    responses={
        400: {"description": "The first step is too long ago, or was completed already"},
        401: {"description": "The code is wrong"},
    },
    dependencies=[SECOND_STEP],
)
async def complete_sign_in(body: SecondStep, request: Request, response: Response) -> Token:
    """The second step of a sign-in: `pending` from the error `second_factor_required`, and the code it asked for.

    Public: this is how callers become known.
    """
    _refuse_foreign_pages(request, by_cookie=body.refresh_by == "cookie")
    database, settings = request.app.state.database, request.app.state.settings
    async with completed(database, pending=body.pending, code=body.code) as (session, user, method):
        opened = await sessions.open_for_tokens(session, settings, user, method=method, scopes=body.scope.split())
        await _end_replaced(request, session, by_cookie=body.refresh_by == "cookie")
    return as_answer(request, response, opened, by_cookie=body.refresh_by == "cookie")


@auth.post(
    "/refresh",
    responses={
        401: {"description": "The refresh token is expired, revoked, used, or not one of ours"},
        403: {"description": "A cookie that another site's page made the browser send"},
    },
    dependencies=[REFRESH],
)
async def refresh_token(request: Request, response: Response, body: RefreshRequest | None = None) -> Token:
    """Exchange a refresh token for a new pair. Each is good once; one that comes back later ends the session.

    Public: the refresh token itself says who is calling.
    """
    given, cookie = body.refresh_token if body else "", request.cookies.get(COOKIE, "")
    _refuse_foreign_pages(request, by_cookie=bool(cookie) and not given)
    if not (given or cookie):
        raise Unauthorized(sessions.NO_GOOD)
    opened = await sessions.refresh(request.app.state.database, request.app.state.settings, given or cookie)
    return as_answer(request, response, opened, by_cookie=not given)


@auth.post("/logout", status_code=204)
async def logout(caller: InPerson, session: Session, request: Request, response: Response) -> None:
    """Sign out: this session's tokens are worthless from now on."""
    response.delete_cookie(**_cookie(request))
    await sessions.end(session, caller.id, reason="signed out", only=caller.credential)


@auth.post("/logout-everywhere", status_code=204)
async def logout_everywhere(caller: InPerson, session: Session, request: Request, response: Response) -> None:
    """Sign out of every device, the console included."""
    response.delete_cookie(**_cookie(request))
    await sessions.end(session, caller.id, reason="signed out everywhere")


@auth.get("/sessions")
async def list_my_sessions(caller: InPerson, session: Session) -> list[SessionOut]:
    """Where you are signed in: devices, addresses, when they were last seen."""
    rows = [SessionOut.model_validate(row) for row in await sessions.list_sessions(session, caller.id)]
    return [row.model_copy(update={"current": row.id == caller.credential}) for row in rows]


@auth.delete("/sessions/{session_id:int}", status_code=204)
async def end_my_session(session_id: Id, caller: InPerson, session: Session) -> None:
    """Sign one device out."""
    await sessions.end_one(session, caller.id, session_id, reason="ended from another session")


@auth.post("/password", status_code=204, responses={401: {"description": "The present password is wrong"}})
async def change_password(body: PasswordChange, caller: InPerson, session: Session, request: Request) -> None:
    """Change your password. Every other device is signed out."""
    user = await service.get_user(session, caller.id)
    await release(session)
    await check_password(
        request.app.state.database, email=user.email, password=body.current_password.get_secret_value()
    )
    new = body.new_password.get_secret_value()
    hashed = await service.new_hash(session, user, new)
    await service.store_password(session, user, hashed, keep_session=caller.credential, reason="password changed")


ME_SECONDS = 60


async def me(caller: Principal, session: AsyncSession) -> Me:
    user = UserOut.model_validate(await service.get_user(session, caller.id))
    return Me(**user.model_dump(), permissions=sorted(caller.permissions))


@auth.get("/me")
@cached("user:{caller.id}", seconds=ME_SECONDS)
async def read_me(caller: Caller, session: ReadSession) -> Me:
    """Your own account, and what this token may do."""
    return await me(caller, session)


@auth.patch("/me")
async def patch_me(body: ProfilePatch, caller: Caller, session: Session) -> Me:
    """Change your own profile."""
    user = await service.get_user(session, caller.id)
    await service.update_user(session, user, **body.model_dump(exclude_unset=True))
    return await me(caller, session)
