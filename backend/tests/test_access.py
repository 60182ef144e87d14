"""Every route, called by every kind of caller, against the tables `access.md` in the tests of each part.

`yes` means the caller got past the guards (whatever became of the empty request); public routes say why they are.
"""

import asyncio
import base64
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from jose import jwt
from pydantic import SecretStr
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Scope

from backend.features.users import tokens
from backend.testing import BASE_URL, PASSWORD, ROOT, MakeUser, new_client, sid_of, token_for
from backend.tests import snapshots

CALLERS = ("anonymous", "user", "staff", "admin")
NOBODY = "2000000000"  # an id that no record has
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
# What ends the sessions of those who call it.
SIGNS_OUT = {"/admin/logout", "/api/v1/auth/logout", "/api/v1/auth/logout-everywhere"}
CONSOLE_PUBLIC = {"/admin/login": "this is how staff become known."}
HEADER = "| Method | Path | " + " | ".join(CALLERS) + " | Public because |\n|" + "---|" * 7 + "\n"


class Entry(NamedTuple):
    module: str
    method: str  # of HTTP, or WS for a WebSocket
    path: str
    reason: str
    stays_open: bool = False


def _reason(endpoint: Any) -> str:
    found = re.search(r"Public: (.+?\.)(?:\s|$)", " ".join((endpoint.__doc__ or "").split()))
    return found[1] if found else ""


def api_routes(app: FastAPI) -> Iterator[Entry]:
    for route in iter_route_contexts(app.routes):
        if route.methods and route.endpoint and route.path:
            for method in sorted(route.methods):
                if method == "HEAD" and "GET" in route.methods:
                    continue  # Starlette's own addition to a plain GET route
                module, reason = route.endpoint.__module__, _reason(route.endpoint)
                stays_open = getattr(route.original_route, "is_sse_stream", False)
                yield Entry(module, method, route.path, reason, stays_open)
        elif isinstance(route.original_route, WebSocketRoute):
            assert route.path
            yield Entry(route.endpoint.__module__, "WS", route.path, _reason(route.endpoint), stays_open=True)


def static_files(app: FastAPI) -> Iterator[Entry]:
    """The folders of files that anybody may have."""
    console = [route.app for route in app.routes if isinstance(route, Mount) and route.name == "admin"]
    inner = [(f"/admin{route.path}", route.app) for app in console for route in getattr(app, "routes", ())]
    outer = [(route.path, getattr(route, "app", None)) for route in iter_route_contexts(app.routes)]
    for path, files in (*inner, *outer):
        if isinstance(files, StaticFiles) and files.directory:
            module = ".".join(Path(files.directory).relative_to(ROOT).parts)
            yield Entry(
                module, "GET", f"{path}/{{file}}", "they are styles, scripts and pictures, the same for everybody."
            )


def console_routes(app: FastAPI) -> Iterator[Entry]:
    console = next((route.app for route in app.routes if isinstance(route, Mount) and route.name == "admin"), None)
    contributed = [view for one in app.state.registry.features for view in one.admin]
    views = {view.identity: view.__module__ for view in contributed if view.is_model}
    pages = {view.__module__ for view in contributed if not view.is_model}
    added = {  # to the views of other features
        f"/{identity}/action/{action.name}": f"backend.features.{one.name}.actions"
        for one in app.state.registry.features
        for identity, actions in (one.record_actions or {}).items()
        for action in actions
    }
    for route in getattr(console, "routes", ()):
        if not isinstance(route, Route):
            continue
        of_a_view = views.get(route.path.split("/")[1], "admin")  # its actions have routes of their own
        mine = route.endpoint.__module__ if route.endpoint.__module__ in pages else added.get(route.path, of_a_view)
        for identity, module in views.items() if "{identity}" in route.path else [("", mine)]:
            path = "/admin" + route.path.replace("{identity}", identity).replace(":path", "")
            for method in sorted((route.methods or {"GET"}) - {"HEAD"}):
                yield Entry(module, method, path, CONSOLE_PUBLIC.get(path, ""))


def address(path: str) -> str:
    filled = path.replace("{export_type}", "csv").replace("{column_name}", "name")
    return re.sub(r"\{[^}]+\}", NOBODY, filled)


def verdict(response: httpx2.Response) -> str:
    assert response.status_code < 500, f"{response.request.method} {response.request.url}: {response.text}"
    if response.status_code in (401, 403):
        return str(response.status_code)
    if response.status_code in (302, 303) and response.headers["location"].endswith("/admin/login"):
        return "sign in"
    return "yes"


Callers = dict[str, httpx2.AsyncClient]


async def signed_in(client: httpx2.AsyncClient, email: str) -> None:
    """To the API and, where that is possible, to the console."""
    form = {"username": email, "password": PASSWORD}
    answer = await client.post("/api/v1/auth/token", data=form)
    assert answer.status_code == 200, answer.text
    token = answer.json()["access_token"]
    client.headers["Authorization"] = f"Bearer {token}"
    await client.post("/admin/login", data=form)


@pytest.fixture
async def callers(app: FastAPI, make_user: MakeUser) -> AsyncIterator[Callers]:
    """A client per kind of caller."""
    async with AsyncExitStack() as stack:
        clients = {}
        for name in CALLERS:
            clients[name] = await stack.enter_async_context(new_client(app, headers=SAME_ORIGIN))
            if name != "anonymous":
                user = await make_user(name, email=f"{name}@example.com")
                await signed_in(clients[name], user.email)
        yield clients


async def sign_in_again(callers: Callers) -> None:
    for name, client in callers.items():
        if name != "anonymous":
            await signed_in(client, f"{name}@example.com")


async def first_answer(app: FastAPI, entry: Entry, client: httpx2.AsyncClient) -> httpx2.Response:
    """What a connection that would stay open begins with: the caller hangs up as soon as it hears something."""
    url, socket = httpx2.URL(BASE_URL + address(entry.path)), entry.method == "WS"
    request = client.build_request("GET", url)
    scope: Scope = {
        "type": "websocket" if socket else "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": url.scheme,
        "method": "GET",
        "path": url.path,
        "raw_path": url.raw_path,
        "query_string": b"",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "extensions": {"websocket.http.response": {}},
    }
    opening = {"type": "websocket.connect"} if socket else {"type": "http.request", "body": b""}
    hanging_up = {"type": "websocket.disconnect" if socket else "http.disconnect", "code": 1001}
    inbox: asyncio.Queue[Message] = asyncio.Queue()
    inbox.put_nowait(opening)
    heard: list[Message] = []

    async def receive() -> Message:
        return await inbox.get()

    async def send(message: Message) -> None:
        heard.append(message)
        inbox.put_nowait(hanging_up)

    await asyncio.wait_for(app(scope, receive, send), timeout=10)
    status = heard[0].get("status", {"websocket.accept": 101, "websocket.close": 403}.get(heard[0]["type"]))
    return httpx2.Response(status, request=request)


async def ask(app: FastAPI, entry: Entry, client: httpx2.AsyncClient) -> httpx2.Response:
    body: dict[str, str] | None = (
        None if entry.path.startswith("/admin") or entry.method in ("GET", "HEAD", "OPTIONS") else {}
    )
    if entry.stays_open:
        return await first_answer(app, entry, client)
    return await client.request(entry.method, address(entry.path), json=body)


async def row(app: FastAPI, entry: Entry, callers: Callers) -> str:
    verdicts = [verdict(await ask(app, entry, client)) for client in callers.values()]
    if entry.path.replace("/api/v2", "/api/v1") in SIGNS_OUT:
        await sign_in_again(callers)
    reason = entry.reason if verdicts[0] == "yes" else ""
    assert reason or verdicts[0] != "yes", (
        f"{entry.method} {entry.path} is open to strangers, and its docstring does not say why (Public: …)"
    )
    return f"| {entry.method} | {entry.path} | {' | '.join(verdicts)} | {reason} |\n"


async def test_every_route_is_open_to_whom_the_tables_say(app: FastAPI, callers: Callers) -> None:
    tables: dict[Path, set[str]] = defaultdict(set)
    routes = {*api_routes(app), *console_routes(app), *static_files(app)}
    v1 = [entry for entry in routes if entry.path.startswith("/api/v1")]
    inherited = {entry._replace(path=entry.path.replace("/api/v1", "/api/v2", 1)) for entry in v1}
    for entry in routes - inherited:  # what v2 inherits from v1 has a test of its own
        tables[snapshots.folder_of(entry.module)].add(await row(app, entry, callers))
    for folder, rows in tables.items():
        lines = sorted(rows, key=lambda line: line.split("|")[2:0:-1])
        snapshots.check(folder / "access.md", f"# Who may call what\n\n{HEADER}{''.join(lines)}")


async def test_v2_is_as_closed_as_v1(app: FastAPI, callers: Callers) -> None:
    entries = {(entry.method, entry.path): entry for entry in api_routes(app)}
    inherited = [entry for entry in entries.values() if entry.path.startswith("/api/v1")]
    assert inherited
    for entry in inherited:
        path = entry.path.replace("/api/v1", "/api/v2", 1)
        other = entries[entry.method, path]
        if other.module == entry.module:
            mine, first = await row(app, other, callers), await row(app, entry, callers)
            assert mine == first.replace("/api/v1", "/api/v2")


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


@pytest.fixture
async def bad_tokens(app: FastAPI, make_user: MakeUser, as_admin: httpx2.AsyncClient) -> dict[str, str]:
    """Tokens that were an administrator's, or look like it, by what is wrong with them."""
    admin, revoked, deactivated = await make_user("admin"), await make_user("admin"), await make_user("admin")
    good, settings = token_for(app, admin), app.state.settings
    head, body, signature = good.split(".")
    other = settings.model_copy(
        update={"security": settings.security.model_copy(update={"secret_key": SecretStr("x" * 40)})}
    )
    claims: dict[str, Any] = {
        "user_id": admin.id,
        "sid": sid_of(admin),
        "scopes": frozenset(app.state.registry.permissions),
    }
    await as_admin.delete(f"/api/v1/users/{revoked.id}/sessions")
    await as_admin.patch(f"/api/v1/users/{deactivated.id}", json={"is_active": False})
    unsigned = encoded(jwt.get_unverified_header(good) | {"alg": "none"})
    return {
        "expired": tokens.issue(settings, **claims, lifetime=timedelta(seconds=-1)),
        "tampered": f"{head}.{encoded(jwt.get_unverified_claims(good) | {'exp': 4102444800})}.{signature}",
        "alg=none": f"{unsigned}.{body}.",
        "wrong kid": tokens.issue(other, **claims, lifetime=timedelta(minutes=5)),
        "revoked session": token_for(app, revoked),
        "deactivated": token_for(app, deactivated),
    }


async def test_bad_tokens_open_nothing(app: FastAPI, bad_tokens: dict[str, str]) -> None:
    async with new_client(app, headers=SAME_ORIGIN) as stranger:
        for entry in {*api_routes(app), *console_routes(app)}:
            if verdict(await ask(app, entry, stranger)) == "yes":
                continue
            for what, token in bad_tokens.items():
                async with new_client(app, headers=SAME_ORIGIN | {"Authorization": f"Bearer {token}"}) as client:
                    assert verdict(await ask(app, entry, client)) in ("401", "sign in"), (what, entry)


BODIES = {"PUT": {"name": "Not mine", "price": "1.00"}, "PATCH": {"name": "Not mine"}}


async def mine(client: httpx2.AsyncClient) -> dict[str, str]:
    """Path parameter → the key of something that belongs to this person, of what this app has."""
    made = {"user_id": (await client.get("/api/v1/auth/me")).json()["id"]}
    made["session_id"] = (await client.get("/api/v1/auth/sessions")).json()[0]["id"]
    for name, path, body in (
        ("item_id", "/api/v1/store/items", {"name": "Mine", "price": "1.00"}),
        ("key_id", "/api/v1/api-keys", {"name": "Mine", "scopes": []}),
    ):
        answer = await client.post(path, json=body)
        if answer.status_code != 404:
            assert answer.status_code == 201, answer.text
            made[name] = answer.json()["id"]
    return {name: str(key) for name, key in made.items()}


async def test_what_is_mine_is_closed_to_another_user(
    app: FastAPI, as_user: httpx2.AsyncClient, make_user: MakeUser
) -> None:
    made, tried = await mine(as_user), 0
    async with new_client(app, headers={"Authorization": f"Bearer {token_for(app, await make_user())}"}) as other:
        for entry in api_routes(app):
            names = re.findall(r"\{(\w+)[:}]", entry.path)
            reads_or_buys = entry.method in ("GET", "HEAD") or entry.path.endswith("/purchase")
            for_all = reads_or_buys and "item_id" in names  # decision 0003
            if not names or not set(names) <= made.keys() or entry.method == "OPTIONS" or for_all:
                continue
            path = re.sub(r"\{(\w+)[^}]*\}", lambda found: made[found[1]], entry.path)
            body = BODIES.get(entry.method, {}) if entry.method not in ("GET", "HEAD") else None
            answer = await other.request(entry.method, path, json=body)
            assert answer.status_code in (403, 404), (entry.method, path, answer.text)
            tried += 1
    assert tried > 10
