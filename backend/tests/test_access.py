"""Every route, called by every kind of caller, against the tables `access.md` in the tests of each part.

`yes` means the caller got past the guards (whatever became of the empty request); public routes say why they are.
"""

import re
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from backend.testing import PASSWORD, ROOT, MakeUser, new_client, token_for
from backend.tests import snapshots

CALLERS = ("anonymous", "user", "staff", "admin")
NOBODY = "2000000000"  # an id that no record has
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
CONSOLE_PUBLIC = {"/admin/login": "this is how staff become known."}
HEADER = "| Method | Path | " + " | ".join(CALLERS) + " | Public because |\n|" + "---|" * 7 + "\n"


class Entry(NamedTuple):
    module: str
    method: str
    path: str
    reason: str


def _reason(endpoint: Any) -> str:
    found = re.search(r"Public: (.+?\.)(?:\s|$)", " ".join((endpoint.__doc__ or "").split()))
    return found[1] if found else ""


def api_routes(app: FastAPI) -> Iterator[Entry]:
    for route in iter_route_contexts(app.routes):
        if route.methods and route.endpoint and route.path:
            for method in sorted(route.methods):
                if method == "HEAD" and "GET" in route.methods:
                    continue  # Starlette's own addition to a plain GET route
                yield Entry(route.endpoint.__module__, method, route.path, _reason(route.endpoint))


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
    views = {view.identity: view.__module__ for one in app.state.registry.features for view in one.admin}
    for route in getattr(console, "routes", ()):
        if not isinstance(route, Route):
            continue
        for identity, module in views.items() if "{identity}" in route.path else [("", "admin")]:
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


@pytest.fixture
async def callers(app: FastAPI, make_user: MakeUser) -> AsyncIterator[dict[str, httpx2.AsyncClient]]:
    """A client per kind of caller, signed in to the API and, where that is possible, to the console."""
    clients = {}
    for name in CALLERS:
        clients[name] = new_client(app, headers=SAME_ORIGIN)
        if name != "anonymous":
            user = await make_user(name)
            clients[name].headers["Authorization"] = f"Bearer {token_for(app, user)}"
            await clients[name].post("/admin/login", data={"username": user.email, "password": PASSWORD})
    yield clients
    for client in clients.values():
        await client.aclose()


async def row(entry: Entry, callers: dict[str, httpx2.AsyncClient]) -> str:
    body: dict[str, str] | None = (
        None if entry.path.startswith("/admin") or entry.method in ("GET", "HEAD", "OPTIONS") else {}
    )
    answers = [await client.request(entry.method, address(entry.path), json=body) for client in callers.values()]
    verdicts = [verdict(answer) for answer in answers]
    reason = entry.reason if verdicts[0] == "yes" else ""
    assert reason or verdicts[0] != "yes", (
        f"{entry.method} {entry.path} is open to strangers, and its docstring does not say why (Public: …)"
    )
    return f"| {entry.method} | {entry.path} | {' | '.join(verdicts)} | {reason} |\n"


async def test_every_route_is_open_to_whom_the_tables_say(app: FastAPI, callers: dict[str, httpx2.AsyncClient]) -> None:
    tables: dict[Path, set[str]] = defaultdict(set)
    entries = sorted(
        {*api_routes(app), *console_routes(app), *static_files(app)}, key=lambda entry: entry.path == "/admin/logout"
    )
    for entry in entries:  # sign-out comes last: it ends the sessions
        if not entry.path.startswith("/api/v2"):
            tables[snapshots.folder_of(entry.module)].add(await row(entry, callers))
    for folder, rows in tables.items():
        lines = sorted(rows, key=lambda line: line.split("|")[2:0:-1])
        snapshots.check(folder / "access.md", f"# Who may call what\n\n{HEADER}{''.join(lines)}")


async def test_v2_is_as_closed_as_v1(app: FastAPI, callers: dict[str, httpx2.AsyncClient]) -> None:
    entries = {(entry.method, entry.path): entry for entry in api_routes(app)}
    inherited = [entry for entry in entries.values() if entry.path.startswith("/api/v1")]
    assert inherited
    for entry in inherited:
        path = entry.path.replace("/api/v1", "/api/v2", 1)
        other = entries[entry.method, path]
        if other.module == entry.module:
            assert await row(other, callers) == (await row(entry, callers)).replace("/api/v1", "/api/v2")
