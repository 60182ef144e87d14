"""Sign-up, tokens, one's own profile, and the users resource."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.security import OAuth2PasswordRequestForm

from backend.core.auth import Caller, Principal, requires
from backend.core.db import Session
from backend.core.errors import Forbidden, Responses
from backend.core.paging import Page, PageNumber
from backend.core.preconditions import IfMatch, check_if_match, etag
from backend.core.schemas import Id
from backend.features.users import service, tokens
from backend.features.users.models import User
from backend.features.users.schemas import (
    Me,
    ProfilePatch,
    Signup,
    Token,
    UserCreate,
    UserFilter,
    UserOut,
    UserPatch,
    UserPut,
)
from backend.features.users.settings import UsersSettings

Reader = Annotated[Principal, requires("users:read")]
Writer = Annotated[Principal, requires("users:write")]
Filter = Annotated[UserFilter, Query()]

CREATED: Responses = {409: {"description": "The e-mail address is taken"}}
CHANGED: Responses = {
    409: {"description": "The e-mail address is taken, or this is the last active administrator"},
    412: {"description": "The account has changed since you read it"},
}

COLLECTION_METHODS = "GET, HEAD, OPTIONS, POST"
RECORD_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"

auth = APIRouter(prefix="/auth", tags=["auth"])
users = APIRouter(prefix="/users", tags=["users"])


def _shown(user: User, response: Response) -> UserOut:
    response.headers["ETag"] = etag(user.version)
    return UserOut.model_validate(user)


@auth.post("/signup", status_code=201, responses={**CREATED, 403: {"description": "Sign-up is closed"}})
async def signup(body: Signup, session: Session, response: Response) -> UserOut:
    """Create an account for yourself.

    Public: a stranger has no account yet. `USERS__SIGNUP_OPEN=false` closes it.
    """
    if not UsersSettings.current().signup_open:
        raise Forbidden("Sign-up is closed; ask an administrator for an account")
    user = await service.create_user(
        session, email=body.email, password=body.password.get_secret_value(), full_name=body.full_name
    )
    return _shown(user, response)


@auth.post("/token", responses={401: {"description": "Wrong e-mail address or password"}})
async def create_token(
    form: Annotated[OAuth2PasswordRequestForm, Depends()], request: Request, response: Response
) -> Token:
    """Sign in for an access token. E-mail address (as `username`) and password, by the OAuth2 password grant.

    Name scopes to get a token that may do less than you. Public: this is how callers become known.
    """
    user = await service.check_password(request.app.state.database, email=form.username, password=form.password)
    settings = request.app.state.settings
    held = tokens.principal_of(user.id or 0, user.email, user.role, request.app.state.registry.permissions).permissions
    scopes = held & frozenset(form.scopes) if form.scopes else held
    lifetime = timedelta(minutes=UsersSettings.current().access_token_minutes)
    response.headers["Cache-Control"] = "no-store"  # RFC 6749 §5.1
    return Token(
        access_token=tokens.issue(settings, user_id=user.id or 0, scopes=scopes, lifetime=lifetime),
        expires_in=int(lifetime.total_seconds()),
        scope=" ".join(sorted(scopes)),
    )


async def _me(caller: Principal, session: Session) -> Me:
    user = UserOut.model_validate(await service.get_user(session, caller.id))
    return Me(**user.model_dump(), permissions=sorted(caller.permissions))


@auth.get("/me")
async def read_me(caller: Caller, session: Session) -> Me:
    """Your own account, and what this token may do."""
    return await _me(caller, session)


@auth.patch("/me")
async def patch_me(body: ProfilePatch, caller: Caller, session: Session) -> Me:
    """Change your own profile."""
    user = await service.get_user(session, caller.id)
    await service.update_user(session, user, **body.model_dump(exclude_unset=True))
    return await _me(caller, session)


@users.get("/me")
async def read_my_user(caller: Caller, session: Session) -> Me:
    """Your own account: the same record as `/auth/me`."""
    return await _me(caller, session)


@users.patch("/me")
async def patch_my_user(body: ProfilePatch, caller: Caller, session: Session) -> Me:
    """Change your own profile: the same as `PATCH /auth/me`."""
    return await patch_me(body, caller, session)


@users.get("")
async def list_users(
    chosen: Filter, query: PageNumber, session: Session, response: Response, caller: Reader
) -> Page[UserOut]:
    """The accounts that match the filters, page by page; `X-Total-Count` has the total as well."""
    total = await service.count_users(session, chosen)
    rows = await service.list_users(session, chosen, query)
    response.headers["X-Total-Count"] = str(total)
    return Page[UserOut].of([UserOut.model_validate(row) for row in rows], query, total)


@users.head("")
async def count_users(chosen: Filter, session: Session, response: Response, caller: Reader) -> None:
    """How many accounts match the filters: `X-Total-Count`, without a body."""
    response.headers["X-Total-Count"] = str(await service.count_users(session, chosen))


@users.options("", status_code=204)
async def users_options(response: Response) -> None:
    """Which methods this resource knows: `Allow`.

    Public: browsers and generic clients ask without credentials; the answer is in this document anyway.
    """
    response.headers["Allow"] = COLLECTION_METHODS


@users.post("", status_code=201, responses=CREATED)
async def create_user(
    body: UserCreate, request: Request, session: Session, response: Response, caller: Writer
) -> UserOut:
    """Create an account for somebody."""
    fields = body.model_dump(exclude={"password"})
    user = await service.create_user(session, password=body.password.get_secret_value(), **fields)
    response.headers["Location"] = f"{request.url.path}/{user.id}"
    return _shown(user, response)


@users.get("/{user_id:int}")
async def read_user(user_id: Id, session: Session, response: Response, caller: Reader) -> UserOut:
    """One account, with its `ETag`."""
    return _shown(await service.get_user(session, user_id), response)


@users.head("/{user_id:int}")
async def head_user(user_id: Id, session: Session, response: Response, caller: Reader) -> None:
    """Whether there is such an account, and its `ETag`, without a body."""
    _shown(await service.get_user(session, user_id), response)


@users.options("/{user_id:int}", status_code=204)
async def user_options(user_id: Id, response: Response) -> None:
    """Which methods this resource knows: `Allow`.

    Public: browsers and generic clients ask without credentials; the answer is in this document anyway.
    """
    response.headers["Allow"] = RECORD_METHODS


@users.put("/{user_id:int}", responses=CHANGED)
async def put_user(
    user_id: Id, body: UserPut, session: Session, response: Response, caller: Writer, if_match: IfMatch = None
) -> UserOut:
    """Replace an account's fields; those left out take their defaults, the password stays."""
    user = await service.get_user(session, user_id)
    check_if_match(if_match, user.version)
    return _shown(await service.update_user(session, user, **body.model_dump()), response)


@users.patch("/{user_id:int}", responses=CHANGED)
async def patch_user(
    user_id: Id, body: UserPatch, session: Session, response: Response, caller: Writer, if_match: IfMatch = None
) -> UserOut:
    """Change some of an account's fields.

    A new password ends the person's console sessions; access tokens last for the minutes that they were given.
    """
    user = await service.get_user(session, user_id)
    check_if_match(if_match, user.version)
    changes = body.model_dump(exclude_unset=True)
    if "password" in changes:
        changes["password"] = body.password.get_secret_value()
    return _shown(await service.update_user(session, user, **changes), response)


@users.delete("/{user_id:int}", status_code=204, responses=CHANGED)
async def delete_user(user_id: Id, session: Session, caller: Writer, if_match: IfMatch = None) -> None:
    """Delete an account for good. What it owned stays, without an owner."""
    user = await service.get_user(session, user_id)
    check_if_match(if_match, user.version)
    await service.delete_user(session, user)


router = APIRouter(routes=[*auth.routes, *users.routes])
