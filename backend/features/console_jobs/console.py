"""Background actions in the console: the list of them, and the page of one, with its progress."""

from datetime import timedelta
from typing import Any, ClassVar

from sqladmin import expose
from sqlalchemy import Select
from sqlmodel import col
from starlette.datastructures import URL
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from backend.core.auth import Principal, Rank
from backend.core.console import ConsolePage, ConsoleView, record_id, refusal
from backend.core.console_filters import Choice, DateRange, Filter, Related
from backend.core.db import Database
from backend.core.models import utc_now
from backend.features.console_jobs import service
from backend.features.console_jobs.models import RUNNING, STATES, ConsoleJob
from backend.features.console_jobs.permissions import EVERYBODY

TEMPLATE = "console_jobs/templates/job.html"
EVERY = 3  # seconds, after which the page is loaded again


def _seen_by(caller: Principal, statement: Select[Any]) -> Select[Any]:
    """One's own, or everybody's."""
    return statement if caller.may(EVERYBODY) else statement.where(col(ConsoleJob.user_id) == caller.id)


class JobView(ConsoleView, model=ConsoleJob):
    scope, sees = "console_jobs", Rank.STAFF
    name, name_plural = "Background action", "Background actions"
    can_export = False  # they come and go; the audit log keeps what was done
    icon = "fa-solid fa-list-check"
    filters: ClassVar[tuple[Filter, ...]] = (
        Choice(ConsoleJob.state, [(state, state.capitalize()) for state in STATES]),
        Related(ConsoleJob.user_id, "user"),
        DateRange(ConsoleJob.created_at),
    )
    column_list: ClassVar[list[Any]] = [
        ConsoleJob.id,
        ConsoleJob.label,
        ConsoleJob.state,
        ConsoleJob.total,
        ConsoleJob.done,
        ConsoleJob.refused,
        ConsoleJob.user_name,
        ConsoleJob.created_at,
    ]
    column_details_list: ClassVar[list[Any]] = [
        *column_list,
        ConsoleJob.query,
        ConsoleJob.started_at,
        ConsoleJob.finished_at,
        ConsoleJob.reason,
    ]
    column_searchable_list: ClassVar[list[Any]] = [ConsoleJob.label, ConsoleJob.user_name]
    column_sortable_list: ClassVar[list[Any]] = [ConsoleJob.id, ConsoleJob.state, ConsoleJob.created_at]
    column_labels: ClassVar[dict[Any, str]] = {
        "id": "ID",
        "label": "Action",
        "state": "State",
        "total": "Records",
        "done": "Done",
        "refused": "Refused",
        "user_id": "Account",
        "user_name": "Begun by",
        "created_at": "Begun",
        "query": "Of the list",
        "started_at": "Started",
        "finished_at": "Ended",
        "reason": "Why it failed",
    }

    def list_query(self, request: Request) -> Select[Any]:
        return _seen_by(request.state.principal, super().list_query(request))

    def details_query(self, request: Request) -> Select[Any]:
        return _seen_by(request.state.principal, super().details_query(request))

    def _build_url_for(self, name: str, request: Request, obj: Any) -> URL:
        """Lists lead to the page with the progress."""
        if name == "admin:details":
            return request.url_for("admin:view-background-action", pk=obj.id)
        return super()._build_url_for(name, request, obj)


def time_left(job: ConsoleJob) -> str:
    """Roughly, at the pace so far; nothing while there is none."""
    if job.state != RUNNING or job.started_at is None or not job.handled:
        return ""
    seconds = (utc_now() - job.started_at).total_seconds() * (job.total - job.handled) / job.handled
    if seconds < 60:
        return "less than a minute left"
    minutes = round(seconds / 60)
    if minutes >= 90:
        return f"about {round(minutes / 60)} hours left"
    return f"about {minutes} minute{'' if minutes == 1 else 's'} left"


class JobPage(ConsolePage):
    """For whoever began it, whatever else they may do."""

    name = "Background action"

    def is_visible(self, request: Request) -> bool:
        return False  # in no menu: it is of one action

    @expose("/background-actions/{pk}", methods=["GET", "POST"], identity="background-action")
    async def show(self, request: Request) -> Response:
        """How far it is. It loads itself again while there is more to do, unless `?still=1`. POST cancels."""
        job = await self._job(request)
        if request.method == "POST":
            await self._cancel(request, job)
            return RedirectResponse(request.url.path, status_code=303)
        view = self._admin_ref.app.state.console_views.get(job.view)
        still = job.is_over or bool(request.query_params.get("still"))
        page = await self.render(
            request,
            TEMPLATE,
            job=job,
            of=view,
            action=view.actions.get(job.action) if view else None,
            left=time_left(job),
            took=job.finished_at - (job.started_at or job.created_at) if job.finished_at else timedelta(),
            still=still,
            every=EVERY,
        )
        if not still:
            page.headers["Refresh"] = str(EVERY)
        return page

    async def _job(self, request: Request) -> ConsoleJob:
        """HTTPException 404: also for somebody else's."""
        database: Database = request.app.state.database
        caller: Principal = request.state.principal
        async with database.session(reading=True) as session:
            job = await session.get(ConsoleJob, record_id(request.path_params["pk"]))
        if job is None or (job.user_id != caller.id and not caller.may(EVERYBODY)):
            raise HTTPException(404)
        return job

    async def _cancel(self, request: Request, job: ConsoleJob) -> None:
        database: Database = request.app.state.database
        try:
            async with database.session() as session:
                await service.cancel(session, job.id or 0)
                await session.commit()
        except Exception as exc:
            refused = refusal(exc)
            raise HTTPException(refused.status, str(refused)) from exc
