"""The delays in the console: deleting one lifts it."""

from collections.abc import Mapping
from typing import Any, ClassVar

from sqlalchemy import Select
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request

from backend.core.auth import Principal
from backend.core.console import ConsoleView
from backend.core.console_filters import Choice, DateRange, Filter, NumberRange, Related
from backend.core.models import utc_now
from backend.features.lockout import service
from backend.features.lockout.models import ACCOUNT, ADDRESS, PAIR, Throttle
from backend.features.users.service import get_user, may_manage


class DelayView(ConsoleView, model=Throttle):
    """Who has to wait before signing in. Deleting a delay lifts it."""

    scope = "sign_in_delays"
    can_export = False  # they come and go
    belongs_to: ClassVar[Mapping[Any, str]] = {Throttle.user_id: "user"}
    removal = "Lift", "They may try to sign in again at once.", "lifted"
    name, name_plural = "Sign-in delay", "Sign-in delays"
    filters: ClassVar[tuple[Filter, ...]] = (
        Choice(Throttle.kind, [(kind, kind.capitalize()) for kind in (PAIR, ACCOUNT, ADDRESS)]),
        Related(Throttle.user_id, "user"),
        NumberRange(Throttle.failures),
        DateRange(Throttle.blocked_until),
    )
    icon = "fa-solid fa-hourglass-half"
    column_list: ClassVar[list[Any]] = [
        Throttle.id,
        Throttle.kind,
        Throttle.user_id,
        Throttle.address,
        Throttle.failures,
        Throttle.last_failure_at,
        Throttle.blocked_until,
    ]
    column_details_list: ClassVar[list[Any]] = column_list
    column_searchable_list: ClassVar[list[Any]] = [Throttle.address, Throttle.user_id]
    column_sortable_list: ClassVar[list[Any]] = [Throttle.id, Throttle.failures, Throttle.blocked_until]
    column_labels: ClassVar[dict[Any, str]] = {
        "id": "ID",
        "kind": "Of",
        "user_id": "Account",
        "address": "Address",
        "failures": "Failed sign-ins",
        "last_failure_at": "Last one",
        "blocked_until": "Until",
    }

    def list_query(self, request: Request) -> Select[Any]:
        """Those that last: what is merely counted keeps nobody waiting."""
        return super().list_query(request).where(col(Throttle.blocked_until) > utc_now())

    async def remove(self, session: AsyncSession, record: Throttle, caller: Principal) -> None:
        if record.user_id is not None:
            await may_manage(session, caller, await get_user(session, record.user_id))
        await service.lift_one(session, record)
