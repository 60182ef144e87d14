"""Builds the console for one app and mounts it."""

from pathlib import Path
from typing import Any

from fastapi import FastAPI
from sqladmin import Admin
from sqladmin.authentication import login_required
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from admin.guard import SameOriginGuard
from admin.sign_in import ConsoleAuthentication, PermissionBackend
from backend.core.config import Settings
from backend.core.db import Database
from backend.core.feature import Registry

HERE = Path(__file__).parent
PATH = "/admin"


class Console(Admin):
    """SQLAdmin with the gaps in its request handling closed."""

    async def _delete(self, request: Request) -> None:
        if not request.query_params.get("pks"):  # SQLAdmin: 500
            raise HTTPException(400, "Select at least one record")
        await super()._delete(request)


async def _bad_values(request: Request, exc: Exception) -> Response:
    """Search and filter values that the database cannot take are the visitor's mistake, not ours."""
    return Response("These values cannot be searched for.", status_code=400, media_type="text/plain")


def mount(app: FastAPI) -> None:
    """Serve the console under /admin, when a feature provides its sign-in."""
    settings: Settings = app.state.settings
    database: Database = app.state.database
    registry: Registry = app.state.registry
    if registry.console_sign_in is None:
        return
    permissions = PermissionBackend()
    console = Console(
        app,
        session_maker=database.console_sessions,
        base_url=PATH,
        title=settings.api.title,
        templates_dir=str(HERE / "templates"),
        middlewares=[Middleware(SameOriginGuard)],
        authentication_backend=ConsoleAuthentication(settings, database, registry.console_sign_in, PATH),
        authorization_backend=permissions,
    )
    console.admin.state.database = database
    console.admin.state.registry = registry
    console.admin.exception_handlers |= {DBAPIError: _bad_values}
    for feature in registry.features:
        for view in feature.admin:
            permissions.permissions[view.identity] = (view.read, view.write)
            # SQLAdmin writes the session maker onto the view class: each app gets a class of its own.
            console.add_view(type(view)(view.__name__, (view,), {}))
