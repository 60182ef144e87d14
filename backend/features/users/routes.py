"""The users resource."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from backend.core.auth import Caller, Principal, requires
from backend.core.cache import cached
from backend.core.db import Session
from backend.core.errors import Responses
from backend.core.paging import Page, PageNumber
from backend.core.preconditions import IfMatch, check_if_match
from backend.core.read_session import ReadSession
from backend.core.schemas import Id
from backend.features.users import service, sessions
from backend.features.users.auth_routes import CREATED, ME_SECONDS, auth, me, patch_me, shown
from backend.features.users.schemas import (
    Me,
    ProfilePatch,
    SessionOut,
    UserCreate,
    UserFilter,
    UserOut,
    UserPatch,
    UserPut,
)

Reader = Annotated[Principal, requires("users:read")]
Writer = Annotated[Principal, requires("users:write")]
Filter = Annotated[UserFilter, Query()]

CHANGED: Responses = {
    409: {"description": "The e-mail address is taken, or this is the last active administrator"},
    412: {"description": "The account has changed since you read it"},
}

COLLECTION_METHODS = "GET, HEAD, OPTIONS, POST"
RECORD_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, PUT"

users = APIRouter(prefix="/users", tags=["users"])


@users.get("/me")
@cached("user:{caller.id}", seconds=ME_SECONDS)
async def read_my_user(caller: Caller, session: ReadSession) -> Me:
    """Your own account: the same record as `/auth/me`."""
    return await me(caller, session)


@users.patch("/me")
async def patch_my_user(body: ProfilePatch, caller: Caller, session: Session) -> Me:
    """Change your own profile: the same as `PATCH /auth/me`."""
    return await patch_me(body, caller, session)


@users.get("")
async def list_users(
    chosen: Filter, query: PageNumber, session: ReadSession, response: Response, caller: Reader
) -> Page[UserOut]:
    """The accounts that match the filters, page by page; `X-Total-Count` has the total as well."""
    rows, total = await service.list_users(session, chosen, query)
    total.tell(response)
    return Page[UserOut].of([UserOut.model_validate(row) for row in rows], query, total)


@users.head("")
async def count_users(chosen: Filter, session: ReadSession, response: Response, caller: Reader) -> None:
    """How many accounts match the filters: `X-Total-Count`, without a body."""
    (await service.count_users(session, chosen)).tell(response)


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
    await service.may_manage(session, caller, None, role=body.role)
    user = await service.create_user(session, password=body.password.get_secret_value(), **fields)
    response.headers["Location"] = f"{request.url.path}/{user.id}"
    return shown(user, response)


@users.get("/{user_id:int}")
async def read_user(user_id: Id, session: Session, response: Response, caller: Reader) -> UserOut:
    """One account, with its `ETag`."""
    return shown(await service.get_user(session, user_id), response)


@users.head("/{user_id:int}")
async def head_user(user_id: Id, session: Session, response: Response, caller: Reader) -> None:
    """Whether there is such an account, and its `ETag`, without a body."""
    shown(await service.get_user(session, user_id), response)


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
    await service.may_manage(session, caller, user, role=body.role)
    return shown(await service.update_user(session, user, **body.model_dump()), response)


@users.patch("/{user_id:int}", responses=CHANGED)
async def patch_user(
    user_id: Id, body: UserPatch, session: Session, response: Response, caller: Writer, if_match: IfMatch = None
) -> UserOut:
    """Change some of an account's fields.

    A new password signs the person out everywhere.
    """
    user = await service.get_user(session, user_id)
    check_if_match(if_match, user.version)
    changes = body.model_dump(exclude_unset=True)
    await service.may_manage(session, caller, user, role=changes.get("role", "user"))
    service.refuse_shortcuts(caller, user, password="password" in changes)
    if "password" in changes:
        changes["password"] = body.password.get_secret_value()
    return shown(await service.update_user(session, user, **changes), response)


@users.delete("/{user_id:int}", status_code=204, responses=CHANGED)
async def delete_user(user_id: Id, session: Session, caller: Writer, if_match: IfMatch = None) -> None:
    """Delete an account for good. What it owned stays, without an owner."""
    user = await service.get_user(session, user_id)
    check_if_match(if_match, user.version)
    await service.may_manage(session, caller, user)
    await service.delete_user(session, user)


@users.get("/{user_id:int}/sessions")
async def list_user_sessions(user_id: Id, session: Session, caller: Reader) -> list[SessionOut]:
    """Where this person is signed in."""
    await service.get_user(session, user_id)
    return [SessionOut.model_validate(row) for row in await sessions.list_sessions(session, user_id)]


@users.delete("/{user_id:int}/sessions", status_code=204)
async def end_user_sessions(user_id: Id, session: Session, caller: Writer) -> None:
    """Sign this person out everywhere."""
    user = await service.get_user(session, user_id)
    await service.may_manage(session, caller, user)
    await sessions.end(session, user_id, reason="ended by an administrator")


router = APIRouter(routes=[*auth.routes, *users.routes])
