"""Accounts, on the console's first page."""

from collections.abc import Sequence
from datetime import timedelta

from fastapi import FastAPI
from sqlmodel import col, func, select

from backend.core.models import utc_now
from backend.core.status import Block, Chart, Line, Panel, Stat, Stats, Window, number
from backend.core.words import _
from backend.features.users.models import User, UserSession

DAYS = 30


async def _read(app: FastAPI, _window: Window) -> Sequence[Block]:
    now = utc_now()
    today = now.replace(hour=0, minute=0, second=0)
    days = [today - timedelta(days=ago) for ago in reversed(range(DAYS))]
    made = func.date(User.created_at)
    async with app.state.database.session(reading=True) as session:
        by_day = select(made, func.count()).where(col(User.created_at) >= days[0]).group_by(made)
        new = {str(day): many for day, many in (await session.exec(by_day)).all()}
        signed_in = select(func.count()).select_from(UserSession).where(col(UserSession.expires_at) > now)
        sessions = (await session.exec(signed_in)).one()
    counts = [new.get(f"{day:%Y-%m-%d}", 0) for day in days]
    stats = [
        Stat(label=_("New accounts today"), value=number(counts[-1])),
        Stat(label=_("In the last 7 days"), value=number(sum(counts[-7:]))),
        Stat(label=_("Sessions that last"), value=number(sessions)),
    ]
    return [Stats(stats), Chart(caption=_("New accounts by day"), times=days, lines=[Line(_("accounts"), counts)])]


PANEL = Panel(title=_("Accounts"), read=_read, permission="users:list")
