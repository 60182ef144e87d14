"""Liveness never touches the database: a database outage must not make the orchestrator restart healthy processes."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from backend import __version__
from backend.core.auth import Permission, Principal, Rank, requires
from backend.core.errors import RETRY_AFTER
from backend.core.health import Report

PERMISSIONS = (Permission(name="health:read", summary="See the state of each component", rank=Rank.STAFF),)


class Status(BaseModel):
    """One word about the app."""

    status: Literal["ok", "degraded", "down"]


class Details(Report):
    """Every component, and the version that runs."""

    version: str
    environment: str


router = APIRouter(tags=["health"])


def _say(response: Response, status: Literal["ok", "degraded", "down"]) -> Status:
    response.headers["Cache-Control"] = "no-store"
    if status == "down":
        response.status_code = 503
        response.headers.update(RETRY_AFTER)
    return Status(status=status)


@router.head("/live", include_in_schema=False)
@router.get("/live")
async def live(response: Response) -> Status:
    """Whether the process runs and its event loop turns.

    Public: an orchestrator has no credentials; the answer tells nothing else.
    """
    return _say(response, "ok")


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses={503: {"description": "Not able to serve now", "model": Status}})
async def ready(request: Request, response: Response) -> Status:
    """Whether the app can serve requests now: everything that it cannot do without is up.

    Public: a load balancer has no credentials; the answer is one word.
    """
    return _say(response, (await request.app.state.health.report()).status)


@router.head("/health", include_in_schema=False)
@router.get("/health", responses={503: {"description": "Not able to serve now", "model": Status}})
async def health(request: Request, response: Response) -> Status:
    """The state of the whole in one word: `ok`, `degraded` or `down`.

    Public: uptime monitors have no credentials; the answer is one word.
    """
    return _say(response, (await request.app.state.health.report()).status)


@router.get("/health/detailed", responses={503: {"description": "Not able to serve now", "model": Details}})
async def health_detailed(
    request: Request, response: Response, caller: Annotated[Principal, requires("health:read")]
) -> Details:
    """The state of every component, with latencies in milliseconds."""
    report: Report = await request.app.state.health.report()
    _say(response, report.status)
    return Details(**report.model_dump(), version=__version__, environment=request.app.state.settings.environment)
