"""Liveness never touches the database: a database outage must not make the orchestrator restart healthy processes."""

from typing import Annotated, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict

from backend import __version__
from backend.core.auth import Permission, Principal, Rank, requires
from backend.core.errors import RETRY_AFTER, Responses
from backend.core.health import Report

PERMISSIONS = (Permission(name="health:read", summary="See the state of each component", rank=Rank.STAFF),)


class Status(BaseModel):
    """One word about the app."""

    status: Literal["ok", "degraded", "down"]


UP: JsonDict = {"name": "database", "status": "up", "required": True, "latency_ms": 0.42}
DOWN: JsonDict = UP | {"status": "down", "error": "OperationalError"}
CIRCUITS: JsonDict = {"redis": "closed", "outside:accounts.google.com": "opened"}
RUNNING: JsonDict = {"version": __version__, "environment": "production"}


class Details(Report):
    """Every component, every circuit breaker of this process, and the version that runs."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"status": "ok", "components": [UP], "circuits": CIRCUITS, **RUNNING}]}
    )

    circuits: dict[str, Literal["closed", "half-opened", "opened"]]  # those that have been used
    version: str
    environment: str


def _down(model: type[BaseModel], example: JsonDict) -> Responses:
    content = {"application/json": {"example": {"status": "down", **example}}}
    return {503: {"description": "Not able to serve now", "model": model, "content": content}}


router = APIRouter(tags=["health"])


def _say(response: Response, status: Literal["ok", "degraded", "down"]) -> Status:
    response.headers["Cache-Control"] = "no-store"
    if status == "down":
        response.status_code = 503
        response.headers.update(RETRY_AFTER)
    return Status(status=status)


ALIVE = Status(status="ok").model_dump_json().encode()


@router.head("/live", include_in_schema=False)
@router.get("/live", response_model=Status)
async def live() -> Response:
    """Whether the process runs and its event loop turns.

    Public: an orchestrator has no credentials; the answer tells nothing else.
    """
    return Response(ALIVE, media_type="application/json", headers={"Cache-Control": "no-store"})


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses=_down(Status, {}))
async def ready(request: Request, response: Response) -> Status:
    """Whether the app can serve requests now: everything that it cannot do without is up, and it is not about to stop.

    Public: a load balancer has no credentials; the answer is one word.
    """
    if request.app.state.stopping.begun:
        return _say(response, "down")
    return _say(response, (await request.app.state.health.report()).status)


@router.head("/health", include_in_schema=False)
@router.get("/health", responses=_down(Status, {}))
async def health(request: Request, response: Response) -> Status:
    """The state of the whole in one word: `ok`, `degraded` or `down`.

    Public: uptime monitors have no credentials; the answer is one word.
    """
    return _say(response, (await request.app.state.health.report()).status)


@router.get("/health/detailed", responses=_down(Details, {"components": [DOWN], "circuits": CIRCUITS, **RUNNING}))
async def health_detailed(
    request: Request, response: Response, caller: Annotated[Principal, requires("health:read")]
) -> Details:
    """The state of every component, with latencies in milliseconds, and of every circuit breaker."""
    app = request.app.state
    report: Report = await app.health.report()
    _say(response, report.status)
    running = {"version": __version__, "environment": app.settings.environment}
    return Details(**report.model_dump(), circuits=app.breakers.states(), **running)
