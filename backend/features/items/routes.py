"""/store/items: list, page, read, create, replace, change, delete."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from backend.core.auth import Principal, requires
from backend.core.cache import cached
from backend.core.db import Session
from backend.core.errors import Responses
from backend.core.limits import limit as rate_limit
from backend.core.paging import Cursor, Limit, Page, PageNumber, Slice, decode_cursor
from backend.core.preconditions import IfMatch, check_if_match, etag
from backend.core.read_session import ReadSession
from backend.core.schemas import Id, Search
from backend.features.items import service
from backend.features.items.schemas import ItemIn, ItemOut, ItemPatch

router = APIRouter(prefix="/store/items", tags=["items"])

Reader = Annotated[Principal, requires("items:read")]
Writer = Annotated[Principal, requires("items:write")]
Q = Annotated[Search, Query(description="Part of the name or the description")]

CACHED_SECONDS = 60  # what passes by the service functions, such as a script, is seen after so long

Items = Slice[ItemOut]  # made once: pydantic looks it up for longer than it takes to fill

CHANGED: Responses = {
    409: {"description": "Somebody else changed the item at the same time"},
    412: {"description": "The item has changed since you read it"},
}


def shown(item: Any, response: Response) -> ItemOut:
    """An item, or a row of its columns, with its `ETag`."""
    response.headers["ETag"] = etag(item.version, ItemOut)
    return ItemOut.model_validate(item)


@router.get("", responses={400: {"description": "The cursor is not one of ours"}})
@cached("items", seconds=CACHED_SECONDS, vary="shared")
async def list_items(
    request: Request,
    response: Response,
    session: ReadSession,
    caller: Reader,
    q: Q = "",
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Items:
    """Items, newest first. Follow `next` (or the `Link` header) for more: every page costs the same."""
    rows = await service.list_items(session, q=q, before=decode_cursor(cursor), limit=limit + 1)
    items = Items.of(rows, limit)
    items.tell(request, response)
    return items


@router.get("/paged", dependencies=[rate_limit("items.paged", "600/minute", by="ip")])
@cached("items", seconds=CACHED_SECONDS, vary="shared")
async def page_items(
    session: ReadSession, response: Response, caller: Reader, query: PageNumber, q: Q = ""
) -> Page[ItemOut]:
    """Items by page number, newest first, with the total: estimated when there are very many."""
    rows, total = await service.page_items(session, query, q=q)
    total.tell(response)
    return Page[ItemOut].of([ItemOut.model_validate(row) for row in rows], query, total)


@router.get("/{item_id:int}")
@cached("item", "item:{item_id}", seconds=CACHED_SECONDS, vary="shared")
async def read_item(item_id: Id, session: ReadSession, response: Response, caller: Reader) -> ItemOut:
    """One item, with its `ETag`."""
    return shown(await service.show_item(session, item_id), response)


@router.post("", status_code=201)
async def create_item(body: ItemIn, request: Request, session: Session, response: Response, caller: Writer) -> ItemOut:
    """Put an item up for sale; it is yours."""
    item = await service.create_item(session, owner_id=caller.id, item=body, last=True)
    response.headers["Location"] = f"{request.url.path}/{item.id}"
    return shown(item, response)


@router.put("/{item_id:int}", responses=CHANGED)
async def put_item(
    item_id: Id, body: ItemIn, session: Session, response: Response, caller: Writer, if_match: IfMatch = None
) -> ItemOut:
    """Replace an item of yours; fields left out take their defaults."""
    item = await service.get_own_item(session, item_id, caller=caller)
    check_if_match(if_match, item.version)
    return shown(await service.update_item(session, item, **body.model_dump()), response)


@router.patch("/{item_id:int}", responses=CHANGED)
async def patch_item(
    item_id: Id, body: ItemPatch, session: Session, response: Response, caller: Writer, if_match: IfMatch = None
) -> ItemOut:
    """Change some fields of an item of yours. Send the `ETag` you read as `If-Match` to overwrite nobody's edit."""
    item = await service.get_own_item(session, item_id, caller=caller)
    check_if_match(if_match, item.version)
    return shown(await service.update_item(session, item, **body.model_dump(exclude_unset=True)), response)


@router.delete("/{item_id:int}", status_code=204, responses=CHANGED)
async def delete_item(item_id: Id, session: Session, caller: Writer, if_match: IfMatch = None) -> None:
    """Delete an item of yours."""
    item = await service.get_own_item(session, item_id, caller=caller)
    check_if_match(if_match, item.version)
    await service.delete_item(session, item)
