"""Doing something to selected records: a page that asks for confirmation, then all of them at once, or none.

More than one transaction should hold are done in the background, where a feature does that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from sqladmin.authentication import login_required
from sqlalchemy import Select, func, select
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from admin.consequences import consequences
from admin.messages import redirect_with
from backend.core.auth import ConsoleSignIn
from backend.core.console import AT_ONCE, ConsoleView, Refused, record_id, refusal
from backend.core.console_actions import REASON_MAX, LongAction, RecordAction, StartsLongActions
from backend.core.console_forms import text_fields
from backend.core.db import Database
from backend.core.feature import Registry

SHOWN = 20  # of the selected records, by name
WRONG_PASSWORD = "This is not your password"  # noqa: S105  a message


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What was selected. `query`: of the list's address, to which the person returns.

    Of more than `AT_ONCE`, `ids` are the first, and `keys` selects them all.
    """

    ids: Sequence[int]
    total: int
    query: str
    keys: Select[Any] | None = None
    up_to: int = 0  # the highest key; what is made while the person decides is not meant


def asking_for(request: Request, query: str) -> Request:
    """The request for the list with this query."""
    return Request({**request.scope, "query_string": query.encode()})


def counted(view: ConsoleView, many: int) -> str:
    """`1 user`, `12,431 users`."""
    return f"{many:,} {(view.name if many == 1 else view.name_plural).lower()}"


async def _chosen(request: Request, view: ConsoleView, form: FormData) -> Chosen:
    """HTTPException when nothing was selected, or too much."""
    query = urlencode(parse_qsl(str(form.get("query", ""))[:2000]))
    one = request.query_params.get("pk")  # of a row's own button, whatever else is ticked
    if form.get("matching") and not one:
        return await _matching(request, view, query, str(form.get("up_to", "")))
    texts = [one] if one else [str(text) for text in form.getlist("pks")]
    ids = list(dict.fromkeys(record_id(text) for text in texts))
    return Chosen(ids=_some(ids), total=len(ids), query=query)


def _some(ids: Sequence[int]) -> Sequence[int]:
    if not 0 < len(ids) <= AT_ONCE:
        raise HTTPException(400, f"Select at least one record, and no more than {AT_ONCE:,}")
    return ids


async def _matching(request: Request, view: ConsoleView, query: str, up_to: str) -> Chosen:
    """All that the list shows, on whatever page. HTTPException when there are none, or more than can be done."""
    key = view.pk_columns[0]
    keys: Select[Any] = view.matching(asking_for(request, query)).with_only_columns(key)
    if up_to:
        keys = keys.where(key <= record_id(up_to))
    async with view.session_maker() as session:
        ids: Sequence[int] = list((await session.execute(keys.order_by(key).limit(AT_ONCE + 1))).scalars())
        if len(ids) <= AT_ONCE:
            return Chosen(ids=_some(ids), total=len(ids), query=query)
        if request.app.state.registry.long_actions is None:
            raise HTTPException(400, f"More than {AT_ONCE:,} records match. Narrow the list down first")
        found = keys.subquery()
        total, highest = (await session.execute(select(func.count(), func.max(found.c[0])).select_from(found))).one()
    return Chosen(ids=ids[:SHOWN], total=total, query=query, keys=keys, up_to=highest)


async def _do(
    request: Request, view: ConsoleView, action: RecordAction, chosen: Chosen, given: Mapping[str, str]
) -> Response:
    """Do it, or have it done; the page that says so. Refused."""
    starts: StartsLongActions | None = request.app.state.registry.long_actions
    if chosen.keys is None or starts is None:
        results = await view.act(request, action, chosen.ids, **given)
        if action.template:
            context = {"model_view": view, "result": results[0]}
            return await view.templates.TemplateResponse(request, action.template, context)
        url = str(request.url_for("admin:list", identity=view.identity).replace(query=chosen.query))
        return redirect_with(request, url, f"{counted(view, chosen.total)} {action.done}.")
    if given:
        raise Refused(f"This can be done to {AT_ONCE:,} records at once. Narrow the list down first")
    label = f"{action.label} {view.name_plural.lower()}"
    asked = LongAction(
        view=view.identity, action=action.name, label=label, query=chosen.query, total=chosen.total, up_to=chosen.up_to
    )
    return redirect_with(request, await starts(request, asked), "This runs in the background; you may leave the page.")


def action_route(view: ConsoleView, action: RecordAction) -> Route:
    """`POST /{identity}/action/{name}`: asks first; with `confirmed`, does it."""

    @login_required
    async def act(_view: ConsoleView, request: Request) -> Response:
        if not view.is_open_to(request.state.principal, action.name):
            raise HTTPException(403)
        form = await text_fields(request)
        chosen = await _chosen(request, view, form)
        if action.template and chosen.total > 1:
            raise HTTPException(400, "This is done to one record at a time")
        problem, status = None, 200
        if form.get("confirmed"):
            try:
                given = _given(action, form)
                await _prove(request, action, str(form.get("password", "")))
                return await _do(request, view, action, chosen, given)
            except Refused as refused:
                problem, status = str(refused), refused.status
        return await _ask(request, view, action, chosen, str(form.get("reason", "")), problem, status)

    async def endpoint(request: Request) -> Response:
        answer: Response = await act(view, request)
        return answer

    name = f"act-{view.identity}-{action.name}"
    return Route(f"/{view.identity}/action/{action.name}", endpoint, methods=["POST"], name=name)


def _given(action: RecordAction, form: FormData) -> dict[str, str]:
    """What the action asks for besides the records."""
    if not action.asks_reason:
        return {}
    reason = str(form.get("reason", "")).strip()
    if not 0 < len(reason) <= REASON_MAX or "\x00" in reason:
        raise Refused(f"Give a reason, of {REASON_MAX} characters at most", 422)
    return {"reason": reason}


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
    request: Request,
    view: ConsoleView,
    action: RecordAction,
    chosen: Chosen,
    reason: str,
    problem: str | None,
    status: int,
) -> Response:
    database: Database = request.app.state.database
    async with database.session(reading=True) as session:
        try:
            records = await view.load_all(session, chosen.ids[:SHOWN])
        except Exception as exc:
            raise HTTPException((refused := refusal(exc)).status, str(refused)) from exc
        ends = action.name == _ends(view)
        which = chosen.ids if chosen.keys is None else chosen.keys
        takes = await consequences(session, view.model, which, _names(request)) if ends else []
    context = {
        "model_view": view,
        "action": action,
        "chosen": chosen,
        "records": records,
        "what": f"“{records[0]}”" if chosen.total == 1 else counted(view, chosen.total),
        "consequences": takes,
        "blocked": any(one.blocks for one in takes),
        "asks_password": _asks_password(request, action),
        "reason_max": REASON_MAX,
        "reason": reason,
        "problem": problem,
    }
    return await view.templates.TemplateResponse(request, "sqladmin/confirm.html", context, status)
