"""/api/v2/store/items: what v2 adds: many at once, a summary, buying."""

from typing import Annotated

from fastapi import APIRouter, Request

from backend.core.auth import Principal, requires
from backend.core.db import Session
from backend.core.errors import Responses
from backend.core.schemas import Id
from backend.features.items import selling, service
from backend.features.items.routes import Reader, Writer
from backend.features.items.schemas import ItemsIn, ItemsMade, ItemSummary, PurchaseIn, PurchaseOut

router = APIRouter(prefix="/store/items", tags=["items"])

Buyer = Annotated[Principal, requires("items:buy")]

SOLD_OUT: Responses = {409: {"description": "There are not that many in stock"}}


@router.post("/bulk", status_code=201)
async def create_items(body: ItemsIn, session: Session, caller: Writer) -> ItemsMade:
    """Put up to 1,000 items up for sale at once: all or none. Their keys come in the order of the items."""
    return ItemsMade(ids=await service.create_items(session, owner_id=caller.id, many=body.items))


@router.get("/{item_id:int}/summary")
async def summarise_item(item_id: Id, request: Request, caller: Reader) -> ItemSummary:
    """Price and inventory of an item, fetched at the same time."""
    return await selling.summarise(request.app.state.database, item_id)


@router.post("/{item_id:int}/purchase", responses=SOLD_OUT)
async def purchase_item(item_id: Id, body: PurchaseIn, session: Session, caller: Buyer) -> PurchaseOut:
    """Buy some of an item. A receipt comes by mail."""
    return await selling.purchase(session, item_id, quantity=body.quantity, buyer=caller)
