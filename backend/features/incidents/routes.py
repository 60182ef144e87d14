"""/api/v2/status and /api/v2/incidents: what everybody may know, and how staff tell it."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.exc import SQLAlchemyError

from backend.core.auth import Principal, requires
from backend.core.cache import cached
from backend.core.db import Database, Session
from backend.core.health import Report
from backend.core.models import key_of
from backend.core.paging import Cursor, Limit, Slice, decode_cursor
from backend.core.read_session import ReadSession
from backend.core.schemas import Id
from backend.features.incidents import service
from backend.features.incidents.schemas import (
    ComponentOut,
    History,
    IncidentIn,
    IncidentOut,
    IncidentPatch,
    StatusOut,
    UpdateIn,
)

router = APIRouter(tags=["incidents"])

Manager = Annotated[Principal, requires("incidents:manage")]
OnlyOpen = Annotated[bool, Query(description="Leave out those that are resolved")]
CACHED_SECONDS = 5

Incidents = Slice[IncidentOut]


async def _history(request: Request, report: Report) -> History:
    """From the database; while that is away, what was known last: a status page is for such times."""
    state = request.app.state
    database: Database = state.database
    if not any(one.required and one.status == "down" for one in report.components):
        try:
            async with database.session(reading=True) as session:
                state.shown_history = await service.shown_history(session)
        except (SQLAlchemyError, OSError):
            pass
    known: History = getattr(state, "shown_history", History(uptime=[], incidents=[]))
    return known


@router.get("/status")
async def read_status(request: Request, response: Response) -> StatusOut:
    """How the whole and each component is now, how often it was up, and which incidents are open.

    Public: a status page is for everybody; it names components and says nothing about their insides.
    """
    report: Report = await request.app.state.health.report()
    known = await _history(request, report)
    response.headers["Cache-Control"] = "no-cache"
    components = [ComponentOut.model_validate(one) for one in report.components]
    return StatusOut(status=report.status, components=components, uptime=known.uptime, incidents=known.incidents)


@router.get("/incidents", responses={400: {"description": "The cursor is not one of ours"}})
@cached("incidents", seconds=CACHED_SECONDS, vary="shared")
async def list_incidents(
    request: Request,
    response: Response,
    session: ReadSession,
    only_open: OnlyOpen = False,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Incidents:
    """Incidents with their updates, newest first. Follow `next` (or the `Link` header) for more.

    Public: a status page is for everybody; these are the words written for it.
    """
    found = await service.list_incidents(session, only_open=only_open, before=decode_cursor(cursor), limit=limit + 1)
    incidents = Incidents.of(found, limit)
    incidents.tell(request, response)
    return incidents


@router.get("/incidents/{incident_id:int}")
@cached("incidents", seconds=CACHED_SECONDS, vary="shared")
async def read_incident(incident_id: Id, session: ReadSession) -> IncidentOut:
    """One incident with its updates.

    Public: a status page is for everybody; these are the words written for it.
    """
    return IncidentOut.model_validate(await service.get_incident(session, incident_id))


@router.post("/incidents", status_code=201)
async def open_incident(
    body: IncidentIn, request: Request, session: Session, response: Response, caller: Manager
) -> IncidentOut:
    """Open an incident. Everybody can read it at once."""
    incident = await service.open_incident(session, by=caller.id, **body.model_dump())
    response.headers["Location"] = f"{request.url.path}/{key_of(incident)}"
    return IncidentOut.model_validate(incident)


@router.patch("/incidents/{incident_id:int}")
async def patch_incident(incident_id: Id, body: IncidentPatch, session: Session, caller: Manager) -> IncidentOut:
    """Change the title or the components of an incident."""
    incident = await service.get_incident(session, incident_id)
    changed = await service.change_incident(session, incident, **body.model_dump(exclude_unset=True))
    return IncidentOut.model_validate(changed)


@router.post("/incidents/{incident_id:int}/updates", status_code=201)
async def add_incident_update(incident_id: Id, body: UpdateIn, session: Session, caller: Manager) -> IncidentOut:
    """Tell people what is going on. `resolved` closes the incident, any other status opens it again."""
    incident = await service.get_incident(session, incident_id)
    return IncidentOut.model_validate(await service.add_update(session, incident, by=caller.id, **body.model_dump()))
