"""Accounts, on the console's first page."""

from collections.abc import Sequence

from fastapi import FastAPI
from sqlmodel import col, func, select

from backend.core.models import utc_now
from backend.core.panels import made_by_day
from backend.core.status import Block, Chart, Line, Panel, Stat, Stats, Window, number
from backend.core.words import _
from backend.features.users.models import User, UserSession


async def _read(app: FastAPI, _window: Window) -> Sequence[Block]:
    async with app.state.database.session(reading=True) as session:
        days, counts = await made_by_day(session, User.created_at)
        signed_in = select(func.count()).select_from(UserSession).where(col(UserSession.expires_at) > utc_now())
        sessions = (await session.exec(signed_in)).one()
    stats = [
        Stat(label=_("New accounts today"), value=number(counts[-1])),
        Stat(label=_("In the last 7 days"), value=number(sum(counts[-7:]))),
        Stat(label=_("Sessions that last"), value=number(sessions)),
    ]
    return [Stats(stats), Chart(caption=_("New accounts by day"), times=days, lines=[Line(_("accounts"), counts)])]


PANEL = Panel(title=_("Accounts"), read=_read, permission="users:list")
