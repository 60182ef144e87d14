"""/audit: read the log."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from backend.core.auth import Principal, requires
from backend.core.paging import Cursor, Limit, Slice, decode_cursor
from backend.core.read_session import ReadSession
from backend.features.audit import service
from backend.features.audit.schemas import AuditEntryOut, AuditFilter

router = APIRouter(prefix="/audit", tags=["audit"])


@router.get("", responses={400: {"description": "The cursor is not one of ours"}})
async def list_audit_entries(
    request: Request,
    response: Response,
    session: ReadSession,
    caller: Annotated[Principal, requires("audit:read")],
    chosen: Annotated[AuditFilter, Query()],
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Slice[AuditEntryOut]:
    """Who changed what, and security events, newest first. Follow `next` (or the `Link` header) for more."""
    rows = await service.list_entries(session, chosen, before=decode_cursor(cursor), limit=limit + 1)
    entries = Slice[AuditEntryOut].of(rows, limit)
    entries.tell(request, response)
    return entries
