"""/api-keys, one's own; /users/…/api-keys, anybody's. A key manages no keys: a leaked one would outlive its end."""

from typing import Annotated

from fastapi import APIRouter, Request, Response

from backend.core.auth import InPerson, Principal, requires
from backend.core.db import Session
from backend.core.errors import Responses
from backend.core.schemas import Id
from backend.features.api_keys import service
from backend.features.api_keys.models import ApiKey
from backend.features.api_keys.permissions import MANAGE
from backend.features.api_keys.schemas import ApiKeyIn, ApiKeyOut, ApiKeyPatch, NewApiKey, Rotation
from backend.features.users.authority import JustSignedIn
from backend.features.users.service import get_user, may_manage

Manager = Annotated[Principal, requires(MANAGE)]

BY_A_KEY: Responses = {403: {"description": "Called with an API key: sign in for this"}}
REFUSED: Responses = {
    403: {"description": "You may not do all of that yourself, called with an API key, or signed in too long ago"}
}

keys = APIRouter(prefix="/api-keys", tags=["api-keys"])
of_people = APIRouter(prefix="/users/{user_id:int}/api-keys", tags=["api-keys"])


def _shown_once(made: ApiKey, key: str, response: Response) -> NewApiKey:
    response.headers["Cache-Control"] = "no-store"
    return NewApiKey(**ApiKeyOut.model_validate(made).model_dump(), key=key)


@keys.post("", status_code=201, responses={**REFUSED, 409: {"description": "You have as many keys as you may have"}})
async def create_api_key(
    body: ApiKeyIn, caller: JustSignedIn, session: Session, request: Request, response: Response
) -> NewApiKey:
    """Create an API key for a service of yours. The answer shows it once; nobody can see it again."""
    made, key = await service.create_key(session, caller, **body.model_dump())
    response.headers["Location"] = f"{request.url.path}/{made.id}"
    return _shown_once(made, key, response)


@keys.get("", responses=BY_A_KEY)
async def list_api_keys(caller: InPerson, session: Session) -> list[ApiKeyOut]:
    """Your API keys, newest first; those that ended lately are among them."""
    return [ApiKeyOut.model_validate(row) for row in await service.list_keys(session, caller.id)]


@keys.get("/{key_id:int}", responses=BY_A_KEY)
async def read_api_key(key_id: Id, caller: InPerson, session: Session) -> ApiKeyOut:
    """One of your API keys."""
    return ApiKeyOut.model_validate(await service.get_key(session, key_id, user_id=caller.id))


@keys.patch("/{key_id:int}", responses=BY_A_KEY)
async def rename_api_key(key_id: Id, body: ApiKeyPatch, caller: InPerson, session: Session) -> ApiKeyOut:
    """Rename an API key of yours. What it may do never changes: create another one for that."""
    key = await service.get_key(session, key_id, user_id=caller.id)
    return ApiKeyOut.model_validate(await service.rename_key(session, key, name=body.name))


@keys.post(
    "/{key_id:int}/rotate",
    status_code=201,
    responses={**REFUSED, 409: {"description": "The key is over, or was rotated already"}},
)
async def rotate_api_key(
    key_id: Id, caller: JustSignedIn, session: Session, response: Response, body: Rotation | None = None
) -> NewApiKey:
    """Replace an API key by one that may do the same. The old one works on for a while, so that services can change."""
    old = await service.get_key(session, key_id, user_id=caller.id)
    hours = body.overlap_hours if body else None
    return _shown_once(*await service.rotate_key(session, caller, old, overlap_hours=hours), response)


@keys.delete("/{key_id:int}", status_code=204, responses=BY_A_KEY)
async def revoke_api_key(key_id: Id, caller: InPerson, session: Session) -> None:
    """Revoke an API key of yours, for good."""
    await service.revoke_key(session, await service.get_key(session, key_id, user_id=caller.id))


@of_people.get("")
async def list_user_api_keys(user_id: Id, caller: Manager, _in_person: InPerson, session: Session) -> list[ApiKeyOut]:
    """Somebody's API keys, newest first."""
    await get_user(session, user_id)
    return [ApiKeyOut.model_validate(row) for row in await service.list_keys(session, user_id)]


@of_people.delete("/{key_id:int}", status_code=204)
async def revoke_user_api_key(user_id: Id, key_id: Id, caller: Manager, _in_person: InPerson, session: Session) -> None:
    """Revoke somebody's API key, for good."""
    await may_manage(session, caller, await get_user(session, user_id))
    await service.revoke_key(session, await service.get_key(session, key_id, user_id=user_id))


router = APIRouter(routes=[*keys.routes, *of_people.routes])
