"""Doing something to selected records: a page that asks for confirmation, then all of them at once, or none."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from sqladmin.authentication import login_required
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from admin.consequences import consequences
from admin.messages import redirect_with
from backend.core.auth import ConsoleSignIn
from backend.core.console import AT_ONCE, ConsoleView, Refused, record_id, refusal
from backend.core.console_actions import RecordAction
from backend.core.console_forms import text_fields
from backend.core.db import Database
from backend.core.feature import Registry

SHOWN = 20  # of the selected records, by name
WRONG_PASSWORD = "This is not your password"  # noqa: S105  a message


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What was selected. `query`: of the list's address, to which the person returns."""

    ids: Sequence[int]
    matching: bool
    query: str


def asking_for(request: Request, query: str) -> Request:
    """The request for the list with this query."""
    return Request({**request.scope, "query_string": query.encode()})


def counted(view: ConsoleView, many: int) -> str:
    """`1 user`, `12,431 users`."""
    return f"{many:,} {(view.name if many == 1 else view.name_plural).lower()}"


async def _chosen(request: Request, view: ConsoleView, form: FormData) -> Chosen:
    """HTTPException when nothing was selected, or too much."""
    query = urlencode(parse_qsl(str(form.get("query", ""))[:2000]))
    if form.get("matching"):
        key = view.pk_columns[0]
        statement = view.matching(asking_for(request, query)).with_only_columns(key).order_by(key).limit(AT_ONCE + 1)
        async with view.session_maker() as session:
            ids: Sequence[int] = list((await session.execute(statement)).scalars())
        if len(ids) > AT_ONCE:
            raise HTTPException(400, f"More than {AT_ONCE:,} records match. Narrow the list down first")
    else:
        one = request.query_params.get("pk")
        texts = [one] if one else [str(text) for text in form.getlist("pks")]
        ids = list(dict.fromkeys(record_id(text) for text in texts))
    if not 0 < len(ids) <= AT_ONCE:
        raise HTTPException(400, f"Select at least one record, and no more than {AT_ONCE:,}")
    return Chosen(ids=ids, matching=bool(form.get("matching")), query=query)


def action_route(view: ConsoleView, action: RecordAction) -> Route:
    """`POST /{identity}/action/{name}`: asks first; with `confirmed`, does it."""

    @login_required
    async def act(_view: ConsoleView, request: Request) -> Response:
        if not view.is_open_to(request.state.principal, action.name):
            raise HTTPException(403)
        form = await text_fields(request)
        chosen = await _chosen(request, view, form)
        problem, status = None, 200
        if form.get("confirmed"):
            try:
                await _prove(request, action, str(form.get("password", "")))
                await view.act(request, action, chosen.ids)
            except Refused as refused:
                problem, status = str(refused), refused.status
            else:
                url = request.url_for("admin:list", identity=view.identity).replace(query=chosen.query)
                return redirect_with(request, str(url), f"{counted(view, len(chosen.ids))} {action.done}.")
        return await _ask(request, view, action, chosen, problem, status)

    async def endpoint(request: Request) -> Response:
        answer: Response = await act(view, request)
        return answer

    name = f"act-{view.identity}-{action.name}"
    return Route(f"/{view.identity}/action/{action.name}", endpoint, methods=["POST"], name=name)


def _asks_password(request: Request, action: RecordAction) -> bool:
    registry: Registry = request.app.state.registry
    sign_in: ConsoleSignIn | None = registry.console_sign_in
    return action.dangerous and sign_in is not None and not sign_in.is_recent(request.state.principal)


async def _prove(request: Request, action: RecordAction, password: str) -> None:
    """Refused unless the person who does something dangerous has signed in a moment ago, or shows the password."""
    if not _asks_password(request, action):
        return
    try:
        proven = await request.app.state.registry.console_sign_in.prove(request, request.state.principal, password)
    except Exception as exc:
        raise refusal(exc) from exc
    if not proven:
        raise Refused(WRONG_PASSWORD, 403)


def _names(request: Request) -> dict[str, str]:
    """What the console calls the tables that it shows."""
    registry: Registry = request.app.state.registry
    views = [view for feature in registry.features for view in feature.admin if issubclass(view, ConsoleView)]
    return {str(view.model.__tablename__): view.name_plural for view in views}  # type: ignore[attr-defined]


def _ends(view: ConsoleView) -> str:
    """The action with which records are gone for good."""
    return "purge" if view.is_recoverable() else "delete"


async def _ask(
    request: Request, view: ConsoleView, action: RecordAction, chosen: Chosen, problem: str | None, status: int
) -> Response:
    database: Database = request.app.state.database
    async with database.session(reading=True) as session:
        try:
            records = await view.load_all(session, chosen.ids[:SHOWN])
        except Exception as exc:
            raise HTTPException((refused := refusal(exc)).status, str(refused)) from exc
        ends = action.name == _ends(view)
        takes = await consequences(session, view.model, chosen.ids, _names(request)) if ends else []
    context = {
        "model_view": view,
        "action": action,
        "chosen": chosen,
        "records": records,
        "what": f"“{records[0]}”" if len(chosen.ids) == 1 else counted(view, len(chosen.ids)),
        "consequences": takes,
        "blocked": any(one.blocks for one in takes),
        "asks_password": _asks_password(request, action),
        "problem": problem,
    }
    return await view.templates.TemplateResponse(request, "sqladmin/confirm.html", context, status)
