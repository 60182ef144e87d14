"""Builds the console for one app and mounts it."""

import logging
import types
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI
from jinja2 import ChoiceLoader, FileSystemLoader
from sqladmin import Admin
from sqladmin.authentication import login_required
from sqladmin.templating import Jinja2Templates
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import NoMatchFound, Route

from admin import lookups
from admin.actions import action_route
from admin.exporting import Exports
from admin.guard import CatchAll, Guard
from admin.history import Histories
from admin.home import home_context
from admin.importing import Imports
from admin.list_editing import Editor, edit_list_route, editor_of
from admin.lookups import Lookups
from admin.messages import message_of
from admin.records import Records
from admin.searching import search_page
from admin.sign_in import ConsoleAuthentication, PermissionBackend
from backend.core.config import Settings
from backend.core.console import ConsoleView, Refused, refusal
from backend.core.console_forms import text_fields
from backend.core.db import Database
from backend.core.errors import RETRY_AFTER, AppError, SecondFactorRequired
from backend.core.feature import Registry
from backend.core.panels import DRAWING, SHARED

HERE = Path(__file__).parent
FEATURES = HERE.parent / "backend" / "features"  # pages of theirs lie beside their code
PATH = "/admin"

# What SQLAdmin would also serve: files named by columns, which no view of ours has; CSV uploads, which `importing`
# takes; and deleting, which is one of our actions.
UNUSED = frozenset({"import", "file_download", "file_preview", "delete"})
# Pages beside the console, by the names of their routes; only those that this app has are shown.
NEIGHBOURS = {"Status": "status", "API documentation": "swagger_ui"}


def _is_news(record: logging.LogRecord) -> bool:
    """A refused form is everyday life; SQLAdmin would log it as an error, with a traceback."""
    return not (record.exc_info and isinstance(record.exc_info[1], Refused))


class Console(Records, Histories, Lookups, Admin):
    """SQLAdmin with the gaps in its request handling closed."""

    def __init__(self, app: FastAPI, **options: Any) -> None:
        middlewares = [Middleware(Guard, statics="/statics/"), Middleware(CatchAll, page=self._error_page)]
        super().__init__(app, middlewares=middlewares, **options)
        routes = [route for route in self.admin.router.routes if getattr(route, "name", "") not in UNUSED | {"logout"}]
        # By POST: a link or an image of another site shall not sign anybody out.
        self.admin.router.routes = [
            *self.history_routes(),
            *lookups.routes(self),
            *routes,
            Route("/logout", self.logout, methods=["POST"], name="logout"),
            Route("/search", self.search, methods=["GET"], name="search"),
            Route("/{identity}/import", self.import_page, methods=["GET", "POST"], name="import"),
            Route("/{identity}/import/template", self.import_template, methods=["GET"], name="import-template"),
        ]
        self.admin.exception_handlers = {HTTPException: self._error_page}
        self.exports, self.imports = Exports(), Imports()

    def init_templating_engine(self) -> Jinja2Templates:
        templates = super().init_templating_engine()
        own = templates.env.loader
        templates.env.loader = ChoiceLoader([*([own] if own else []), FileSystemLoader([FEATURES, SHARED])])
        templates.env.globals |= DRAWING
        return templates

    async def _error_page(self, request: Request, exc: Exception) -> Response:
        refused = refusal(exc)
        context = {"status": refused.status, "message": str(refused)}
        page = await self.templates.TemplateResponse(request, "sqladmin/error.html", context, refused.status)
        page.headers.update(getattr(exc, "headers", None) or (RETRY_AFTER if refused.status == 503 else {}))
        return page

    async def login(self, request: Request) -> Response:
        """The sign-in form, and its second step where somebody has a second factor."""
        refused: AppError
        try:
            return await super().login(request)
        except SecondFactorRequired as step:
            refused, problem, pending = step, None, (step.details or {}).get("pending")
        except AppError as exc:
            refused = exc
            # A wrong code may be corrected; what took too long begins anew.
            pending = (await text_fields(request)).get("pending") if refused.status == 401 else None
            problem = refused.text
        context = {"problem": problem, "pending": pending}
        page = await self.templates.TemplateResponse(request, "sqladmin/login.html", context, refused.status)
        page.headers.update(refused.headers)
        return page

    @login_required
    async def index(self, request: Request) -> Response:
        """How the app does, what was done lately, and the way to everything."""
        context = await home_context(request)
        page: Response = await self.templates.TemplateResponse(request, "sqladmin/index.html", context)
        return page

    @login_required
    async def search(self, request: Request) -> Response:
        """What of all that the person may see contains a term."""
        views = [view for view in self.views if isinstance(view, ConsoleView)]
        return await search_page(request, views, self.templates)

    def _asked_view(self, request: Request) -> ConsoleView:
        """The view that the address names. HTTPException 404."""
        return cast("ConsoleView", self._find_model_view(request.path_params["identity"]))

    @login_required
    async def export(self, request: Request) -> Response:
        """All that the list shows, as a file. SQLAdmin's own holds every record in memory, and formulas as they are."""
        return self.exports.download(request, self._asked_view(request))

    @login_required
    async def import_page(self, request: Request) -> Response:
        return await self.imports.answer(request, self._asked_view(request))

    @login_required
    async def import_template(self, request: Request) -> Response:
        return self.imports.template(request, self._asked_view(request))

    def message(self, request: Request) -> str:
        """What came of what the person did on the page before."""
        return message_of(request)

    async def list_editor(self, request: Request, view: ConsoleView) -> Editor | None:
        """The inputs in the cells of a list, if there are any for this person."""
        return await editor_of(request, view)

    def add_view(self, view: type[Any]) -> None:
        super().add_view(view)
        added = self._views[-1]
        if isinstance(added, ConsoleView):
            routes = [action_route(added, action) for action in added.actions.values()]
            if added.column_edit_list and added.can_edit:
                routes.append(edit_list_route(self, added))
            self.admin.router.routes[:0] = routes  # SQLAdmin's have placeholders that would take them

    def neighbours(self, request: Request) -> dict[str, str]:
        """Label → path of the pages beside the console."""
        prefix = request.scope.get("app_root_path", "")
        found = {}
        for label, name in NEIGHBOURS.items():
            with suppress(NoMatchFound):
                found[label] = prefix + self.app.url_path_for(name)
        return found

    async def _handle_form_data(self, request: Request, obj: Any = None) -> FormData:  # type: ignore[override]
        return await self.with_keys(request, await text_fields(request))


def mount(app: FastAPI) -> None:
    """Serve the console under /admin, when a feature provides its sign-in."""
    settings: Settings = app.state.settings
    database: Database = app.state.database
    registry: Registry = app.state.registry
    app.state.console_views = {}  # by identity, for what is done apart from requests
    if registry.console_sign_in is None:
        return
    permissions = PermissionBackend()
    console = Console(
        app,
        session_maker=database.console_sessions,
        base_url=PATH,
        title=settings.api.title,
        templates_dir=str(HERE / "templates"),
        static_files_kwargs={"directory": HERE / "static"},
        authentication_backend=ConsoleAuthentication(database, registry.console_sign_in),
        authorization_backend=permissions,
    )
    console.admin.state.main = app
    console.admin.state.settings = settings
    console.admin.state.database = database
    console.admin.state.registry = registry
    logging.getLogger("sqladmin.application").addFilter(_is_news)
    added = registry.record_actions
    contributed = [view for feature in registry.features for view in feature.admin]
    for view in sorted(contributed, key=lambda view: (not view.is_model, bool(view.category))):  # tables, pages, groups
        # SQLAdmin writes the session maker onto the view class: each app gets a class of its own.
        mine = types.new_class(view.__name__, (view,))
        if issubclass(mine, ConsoleView):
            mine.actions = {**added.get(mine.identity, {}), **mine.actions}
            permissions.views[mine.identity] = mine
        console.add_view(mine)
    app.state.console_views |= {view.identity: view for view in console.views if isinstance(view, ConsoleView)}
