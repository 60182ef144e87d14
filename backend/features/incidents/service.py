"""The rules about incidents. The API, the console and what opens them by itself call these functions."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.cache import cached_result, invalidate
from backend.core.errors import NotFound
from backend.core.models import utc_now
from backend.features.incidents import history
from backend.features.incidents.models import Incident, IncidentUpdate
from backend.features.incidents.schemas import History, IncidentOut

RESOLVED = "resolved"
MOST_OPEN = 20  # that a status page shows
HISTORY_SECONDS = 5  # for which strangers' reloads cost no statement


async def list_incidents(
    session: AsyncSession, *, only_open: bool = False, before: int | None = None, limit: int
) -> Sequence[Incident]:
    """Up to `limit` incidents with their updates, newest first, from the one before id `before` on: two statements."""
    statement = select(Incident).order_by(col(Incident.id).desc()).limit(limit)
    if only_open:
        statement = statement.where(col(Incident.resolved_at).is_(None))
    if before is not None:
        statement = statement.where(col(Incident.id) < before)
    return (await session.exec(statement)).all()


async def get_incident(session: AsyncSession, incident_id: int) -> Incident:
    incident = await session.get(Incident, incident_id)
    if incident is None:
        raise NotFound("There is no such incident")
    return incident


async def open_incident(
    session: AsyncSession,
    *,
    title: str,
    components: Sequence[str],
    status: str,
    text: str,
    by: int | None = None,
    opened_at: datetime | None = None,
    watched: str | None = None,
) -> Incident:
    """`watched`: the component whose looks open it, and will close it."""
    now = utc_now()
    incident = Incident(
        title=title,
        component_names=",".join(components),
        status=status,
        opened_at=opened_at or now,
        resolved_at=now if status == RESOLVED else None,
        automatic=watched is not None,
        watched=watched,
        updates=[IncidentUpdate(status=status, text=text, by_id=by, at=opened_at or now)],
    )
    session.add(incident)
    await session.flush()
    invalidate(session, "incidents")
    return incident


async def change_incident(session: AsyncSession, incident: Incident, **fields: Any) -> Incident:
    if "components" in fields:
        fields["component_names"] = ",".join(fields.pop("components"))
    for name, value in fields.items():
        setattr(incident, name, value)
    session.add(incident)
    await session.flush()
    invalidate(session, "incidents")
    return incident


async def _to_watch(session: AsyncSession, incident: Incident) -> str | None:
    """The component of an automatic incident that is opened again, unless another of it is open meanwhile."""
    component = incident.component_names
    taken = await session.exec(select(Incident.id).where(col(Incident.watched) == component))
    return None if taken.first() else component


async def add_update(
    session: AsyncSession,
    incident: Incident,
    *,
    status: str,
    text: str,
    by: int | None = None,
    at: datetime | None = None,
) -> Incident:
    """Tell people something. `resolved` closes the incident, anything else opens it again."""
    at = at or utc_now()
    incident.status = status
    if status == RESOLVED:
        incident.resolved_at = incident.resolved_at or at
        incident.watched = None
    else:
        if incident.automatic and incident.resolved_at is not None:
            incident.watched = await _to_watch(session, incident)
        incident.resolved_at = None
    incident.updated_at = utc_now()  # though nothing else may have changed, and so that it has a new version
    incident.updates.insert(0, IncidentUpdate(status=status, text=text, by_id=by, at=at))
    session.add(incident)
    await session.flush()
    invalidate(session, "incidents")
    return incident


@cached_result("incidents", seconds=HISTORY_SECONDS)
async def shown_history(session: AsyncSession) -> History:
    """What a status page says besides how things are right now."""
    incidents = await list_incidents(session, only_open=True, limit=MOST_OPEN)
    return History(
        uptime=await history.uptime(session), incidents=[IncidentOut.model_validate(one) for one in incidents]
    )
