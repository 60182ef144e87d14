"""Incidents that open and close by themselves, and the moments of change: what follows from a series of looks."""

from datetime import datetime, timedelta

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.features.incidents import service
from backend.features.incidents.models import ComponentState, Incident, StateChange
from backend.features.incidents.seen import Run
from backend.features.incidents.settings import IncidentsSettings


def lasted(time: timedelta) -> str:
    """`3 hours 5 minutes`: the two largest units that are not none."""
    left = int(time.total_seconds())
    parts = []
    for unit, seconds in (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1)):
        number, left = divmod(left, seconds)
        if number:
            parts.append(f"{number} {unit}" + ("s" if number > 1 else ""))
    return " ".join(parts[:2]) or "less than a second"


async def follow(session: AsyncSession, runs: list[Run]) -> None:
    """Bring the states up to date, in the order of what was seen, with what comes of it."""
    if not runs:
        return
    names = {run.component for run in runs}
    found = await session.exec(select(ComponentState).where(col(ComponentState.component).in_(names)))
    known = {state.component: state for state in found}
    watched = await session.exec(select(Incident).where(col(Incident.watched).in_(names)))
    open_ones = {str(one.watched): one for one in watched}
    for run in runs:
        state = known.get(run.component)
        if state is None or state.up != run.up:
            session.add(StateChange(component=run.component, up=run.up, at=run.first))
            if state is None:
                state = ComponentState(component=run.component, up=run.up, since=run.first, looked_at=run.last)
                known[run.component] = state
            state.up, state.since = run.up, run.first
        state.looked_at = run.last
        before, state.failures = state.failures, 0 if run.up else state.failures + run.looks
        session.add(state)
        incident = open_ones.get(run.component)
        if incident and run.up:
            await close(session, open_ones.pop(run.component), run.component, run.first)
        # Only as it becomes so many: one that somebody has closed by hand does not come back at the next look.
        elif not incident and before < IncidentsSettings.current().open_after <= state.failures:
            open_ones[run.component] = await open_for(session, run.component, state.since)
    await session.flush()


async def open_for(session: AsyncSession, component: str, since: datetime) -> Incident:
    return await service.open_incident(
        session,
        title=f"{component} is not available",
        components=[component],
        status="investigating",
        text=f"{component} has not answered since {since:%H:%M:%S} UTC. We have been told, and are looking into it.",
        opened_at=since,
        watched=component,
    )


async def close(session: AsyncSession, incident: Incident, component: str, at: datetime) -> None:
    text = f"{component} is available again. It was not for {lasted(at - incident.opened_at)}."
    await service.add_update(session, incident, status="resolved", text=text, at=at)
