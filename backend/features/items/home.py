"""Items, on the console's first page."""

from collections.abc import Sequence

from fastapi import FastAPI

from backend.core.panels import made_by_day
from backend.core.status import Block, Chart, Line, Panel, Stat, Stats, Window, number
from backend.core.words import _
from backend.features.items.models import Item


async def _read(app: FastAPI, _window: Window) -> Sequence[Block]:
    async with app.state.database.session(reading=True) as session:
        days, counts = await made_by_day(session, Item.created_at)
    stats = [
        Stat(label=_("New items today"), value=number(counts[-1])),
        Stat(label=_("In the last 7 days"), value=number(sum(counts[-7:]))),
    ]
    return [Stats(stats), Chart(caption=_("New items by day"), times=days, lines=[Line(_("items"), counts)])]


PANEL = Panel(title=_("Items"), read=_read, permission="items:list")
