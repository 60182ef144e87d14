"""What was done lately, on the console's first page."""

from collections.abc import Sequence

from fastapi import FastAPI

from backend.core.status import Block, Panel, Table, Window
from backend.core.words import _
from backend.features.audit.schemas import AuditFilter
from backend.features.audit.service import list_entries

LATELY = 10


async def _read(app: FastAPI, _window: Window) -> Sequence[Block]:
    async with app.state.database.session(reading=True) as session:
        entries = await list_entries(session, AuditFilter(), limit=LATELY)
    rows = [
        (
            f"{one.at:%Y-%m-%d %H:%M} UTC",
            one.who,
            one.action,
            f"{one.subject_type} {one.subject_id}".strip(),
        )
        for one in entries
    ]
    columns = (_("When"), _("Who"), _("Action"), _("What"))
    return [Table(caption=_("The newest first"), columns=columns, rows=rows, empty=_("Nothing was done yet."))]


PANEL = Panel(title=_("Recent actions"), read=_read, permission="audit:list")
