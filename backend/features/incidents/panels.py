"""What the status page shows to everybody: incidents, and how much of the last 90 days each component was up."""

from collections.abc import Sequence

from fastapi import FastAPI

from backend.core.status import Block, Day, Histories, History, Incident, Incidents, Panel, Update, Window
from backend.core.words import _
from backend.features.incidents import history, service
from backend.features.incidents.schemas import IncidentOut, UptimeOut

SHOWN = 5  # incidents: all that are open, and of those that are over as many as make up five
STATUSES = {
    "investigating": _("Investigating"),
    "identified": _("Identified"),
    "monitoring": _("Monitoring"),
    "resolved": _("Resolved"),
}


def _incident(one: IncidentOut) -> Incident:
    updates = [Update(at=update.at, status=STATUSES[update.status], text=update.text) for update in one.updates]
    return Incident(
        title=one.title,
        components=one.components,
        status=STATUSES[one.status],
        opened_at=one.opened_at,
        resolved_at=one.resolved_at,
        updates=updates,
    )


async def _incidents(app: FastAPI, _window: Window) -> Sequence[Block]:
    async with app.state.database.session(reading=True) as session:
        opened = await service.list_incidents(session, only_open=True, limit=service.MOST_OPEN)
        newest = await service.list_incidents(session, limit=SHOWN)
        over = [one for one in newest if one.resolved_at is not None][: max(0, SHOWN - len(opened))]
        shown = [_incident(IncidentOut.model_validate(one)) for one in (*opened, *over)]
    return [Incidents(shown, empty=_("There has been no incident."))]


def _history(up: UptimeOut, days: Sequence[Day], latencies: Sequence[float | None]) -> History:
    uptimes = {_("24 h"): up.day, _("7 d"): up.week, _("90 d"): up.quarter}
    return History(component=up.component, days=days, uptimes=uptimes, latencies=latencies)


async def _uptime(app: FastAPI, _window: Window) -> Sequence[Block]:
    async with app.state.database.session(reading=True) as session:
        uptimes = await history.uptime(session)
        days, latencies = await history.days(session), await history.latencies(session)
    return [
        Histories(
            [
                _history(
                    up,
                    [Day(day.day, day.uptime) for day in days.get(up.component, ())],
                    [latency.mean for latency in latencies.get(up.component, ())],
                )
                for up in uptimes
            ]
        )
    ]


PANELS = (Panel(title=_("Incidents"), read=_incidents), Panel(title=_("Uptime"), read=_uptime))
