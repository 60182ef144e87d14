"""What the reference pages say about the code, read from the code: `python -m docs.generate` prints it as JSON.

A page has `{{ settings }}` where its part goes. This is a process of its own for every build, so that the live preview
shows the code as it is now, and the app's logging stays out of MkDocs.
"""

import argparse
import ast
import asyncio
import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from http import HTTPStatus
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

import httpx2
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIWebSocketRoute
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from pydantic.fields import FieldInfo

import backend
from backend.__main__ import parser
from backend.core.auth import Rank, authenticate
from backend.core.config import PLATFORM_NAMES, EnvSettings, Settings
from backend.core.errors import HTTP_CODES, AppError
from backend.core.events import Event
from backend.core.feature import Registry, load
from backend.core.limits import DECLARED
from backend.features import FEATURES
from backend.main import create_app

ROOT = Path(__file__).resolve().parent.parent

Row = Sequence[str]


def table(head: Row, rows: Iterable[Row]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines) + "\n"


def cell(text: str) -> str:
    """Outside code, `|` would end the cell."""
    return re.sub(r"`[^`]*`|\|", lambda found: found[0] if len(found[0]) > 1 else "\\|", text)


def code(text: str) -> str:
    return f"`{text}`" if text else ""


# --- settings ------------------------------------------------------------------------------------------------------

KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    SecretStr: "secret text",
}
BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
TITLES = {"": "General", "api": "API"}


def kind(field: FieldInfo) -> str:
    """The type of a setting in words, with its bounds."""
    annotation: Any = field.annotation
    if get_origin(annotation) is Literal:
        words = " or ".join(code(str(choice)) for choice in get_args(annotation))
    elif get_origin(annotation) is tuple:
        words = "list, separated by commas"
    else:
        words = KINDS.get(annotation) or str(getattr(annotation, "__name__", annotation))
    limits = [(sign, getattr(rule, name, None)) for rule in field.metadata for name, sign in BOUNDS.items()]
    return ", ".join([words, *(f"{sign} {limit}" for sign, limit in limits if limit is not None)])


def default_of(field: FieldInfo) -> str:
    """A default as one would write it in `.env`."""
    value = field.default
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def setting_rows(variables: dict[str, FieldInfo]) -> str:
    short = {ours.upper(): theirs.upper() for theirs, ours in PLATFORM_NAMES.items()}
    rows = []
    for name, field in variables.items():
        names = code(name) + (f"<br>or {code(short[name])}" if name in short else "")
        rows.append((names, code(default_of(field)) or "empty", kind(field), field.description or ""))
    return table(("Variable", "Default", "Type", "What for"), rows)


def sections(settings: type[EnvSettings]) -> dict[str, dict[str, FieldInfo]]:
    found: dict[str, dict[str, FieldInfo]] = defaultdict(dict)
    for name, field in settings.variables().items():
        found[name.partition("__")[0].lower() if "__" in name else ""][name] = field
    return found


def settings_part(registry: Registry) -> str:
    out = []
    for section, variables in sections(Settings).items():
        out += [f"## {TITLES.get(section, section.capitalize())}\n", setting_rows(variables)]
    for one in registry.features:
        if one.settings:
            out += [f"## Feature {code(one.name)}\n", f"{one.summary}.\n", setting_rows(one.settings.variables())]
    return "\n".join(out)


# --- permissions, features -----------------------------------------------------------------------------------------

WHO = {Rank.USER: "everybody who is signed in", Rank.STAFF: "staff and administrators", Rank.ADMIN: "administrators"}


def permissions_part(registry: Registry) -> str:
    rows = [
        (code(permission.name), permission.summary, WHO[permission.rank], code(one.name))
        for one in registry.features
        for permission in one.all_permissions
    ]
    return table(("Permission", "What it allows", "Who holds it", "Feature"), rows)


def events() -> list[type[Event]]:
    """Every kind of event that the imported features declare."""
    found, waiting = [], [Event]
    while waiting:
        kinds = waiting.pop().__subclasses__()
        waiting += kinds
        found += [kind for kind in kinds if kind.__module__.startswith("backend.features.")]
    return sorted(found, key=lambda kind: (kind.__module__, getattr(kind, "action", ""), kind.__name__))


def events_part() -> str:
    rows = []
    for kind in events():
        own = [one.name for one in fields(kind) if one.name != "user_id"]
        said = "" if (kind.__doc__ or "").startswith(f"{kind.__name__}(") else inspect.getdoc(kind) or ""
        rows.append(
            (
                code(kind.__name__),
                code(getattr(kind, "action", "")),
                ", ".join(map(code, own)),
                " ".join(said.split()),
                code(kind.__module__.split(".")[2]),
            )
        )
    return table(("Event", "Security event", "Fields besides `user_id`", "When", "Feature"), rows)


CONTRIBUTIONS = {
    "v1": "routes in `/api/v1` and `/api/v2`",
    "v2": "routes in `/api/v2` only",
    "root": "routes outside the API versions",
    "middleware": "a middleware",
    "lifespan": "something that runs while the app runs",
    "authenticators": "a way to recognise callers",
    "on": "answers to events",
    "console_sign_in": "the console's sign-in",
    "admin": "console pages",
    "health": "health probes",
    "figures": "figures for metrics",
    "seed": "demo data",
}


def features_part(registry: Registry) -> str:
    out = []
    for one in registry.features:
        module = importlib.import_module(f"backend.features.{one.name}")
        brings = [words for field, words in CONTRIBUTIONS.items() if getattr(one, field)]
        facts = [("Needs", ", ".join(map(code, one.needs))), ("Brings", ", ".join(brings))]
        facts.append(("Permissions", ", ".join(code(permission.name) for permission in one.all_permissions)))
        if one.settings:
            facts.append(("Settings", f"[{len(one.settings.variables())}](settings.md#feature-{one.name})"))
        out += [f"## {one.name}\n", inspect.cleandoc(module.__doc__ or "") + "\n"]
        out += ["\n".join(f"- {label}: {text}" for label, text in facts if text) + "\n"]
    return "\n".join(out)


# --- errors --------------------------------------------------------------------------------------------------------


class ErrorCode(NamedTuple):
    code: str
    status: int
    meaning: str
    source: str


def import_everything() -> None:
    """So that every error class is known, whichever module declares it."""
    for module in pkgutil.walk_packages(backend.__path__, "backend."):
        if not {"tests", "migrations", "testing", "__main__"} & set(module.name.split(".")):
            importlib.import_module(module.name)


def error_classes(base: type[AppError] = AppError) -> Iterator[type[AppError]]:
    """Every kind of error that the code can raise for a client. Classes of tests are not ours to document."""
    if not {"tests", "testing"} & set(base.__module__.split(".")):
        yield base
    for one in base.__subclasses__():
        yield from error_classes(one)


def literal_answers() -> Iterator[ErrorCode]:
    """`error_response(scope, 413, "content_too_large", …)`: what is answered without raising, mostly by middleware."""
    for path in sorted((ROOT / "backend").rglob("*.py")):
        if "tests" in path.parts:
            continue
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        for call in calls:
            if getattr(call.func, "id", getattr(call.func, "attr", "")) == "error_response":
                match call.args[1:4]:
                    case [ast.Constant(value=int(status)), ast.Constant(value=str(name)), *rest]:
                        said = rest[0].value if rest and isinstance(rest[0], ast.Constant) else ""
                        yield ErrorCode(name, status, str(said), where(path))


def where(path: Path) -> str:
    parts = path.relative_to(ROOT / "backend").with_suffix("").parts
    return code(parts[1]) if parts[0] == "features" else "kernel"


def errors() -> list[ErrorCode]:
    """Every code that a client can meet, each once: classes first, then middleware's, then the framework's."""
    import_everything()
    found: dict[tuple[str, int], ErrorCode] = {}
    for kind_ in error_classes():
        source = f"{where(Path(inspect.getfile(kind_)))}: {code(kind_.__name__)}"
        one = ErrorCode(kind_.code, kind_.status, kind_.message, source)
        found.setdefault((one.code, one.status), one)
    for one in literal_answers():
        found.setdefault((one.code, one.status), one)
    for status, name in HTTP_CODES.items():
        found.setdefault((name, status), ErrorCode(name, status, "", "framework"))
    return sorted(found.values(), key=lambda one: (one.status, one.code))


def in_words(status: int) -> str:
    return HTTPStatus(status).description or HTTPStatus(status).phrase


def errors_part() -> str:
    rows = [(str(one.status), code(one.code), one.meaning or in_words(one.status), one.source) for one in errors()]
    rows.append(("other", "`http_error`", "Any other status that the framework answers with", "framework"))
    return table(("Status", "Code", "Message", "From"), rows)


# --- the HTTP API --------------------------------------------------------------------------------------------------

METHODS = ("get", "post", "put", "patch", "delete", "head", "options", "ws")


def scopes_of(dependant: Dependant) -> list[list[str]]:
    """What each sign-in that a route depends on asks for; empty when there is none."""
    own = [list(dependant.own_oauth_scopes or ())] if dependant.call is authenticate else []
    return own + [scopes for one in dependant.dependencies for scopes in scopes_of(one)]


def with_websockets(paths: dict[str, Any], registry: Registry) -> dict[str, Any]:
    """OpenAPI knows no WebSockets: add those of the features' routers, in its own shape, with the method `ws`."""
    found = {path: dict(operations) for path, operations in paths.items()}
    for one in registry.features:
        for router, prefixes in ((one.v2, ("/api/v2",)), (one.v1, ("/api/v1", "/api/v2")), (one.root, ("",))):
            for route in router.routes if router else ():
                if isinstance(route, APIWebSocketRoute):
                    operation = {
                        "tags": router.tags if router else [],
                        "summary": (inspect.getdoc(route.endpoint) or "").partition("\n")[0].rstrip("."),
                        "security": [{"OAuth2": scopes} for scopes in scopes_of(route.dependant)],
                    }
                    for prefix in prefixes:
                        found.setdefault(prefix + route.path, {}).setdefault("ws", operation)
    return found


def needed(operation: dict[str, Any]) -> str:
    """Who may call an operation, in a word or two."""
    if not operation.get("security"):
        return "everybody"
    scopes = [scope for scheme in operation["security"] for scopes in scheme.values() for scope in scopes]
    return ", ".join(code(scope) for scope in scopes) or "signed in"


def api_part(paths: dict[str, Any]) -> str:
    """One row per operation, whichever versions have it."""
    groups: dict[str, dict[tuple[str, str], tuple[set[str], dict[str, Any]]]] = defaultdict(dict)
    for path, operations in paths.items():
        versioned = re.fullmatch(r"/api/(v\d+)(/.*)", path)
        version, rest = versioned.groups() if versioned else ("", path)
        for method in METHODS:
            if operation := operations.get(method):
                tag = re.sub(r"-v\d+$", "", (operation.get("tags") or ["other"])[0])
                versions, _ = groups[tag].setdefault((method, rest), (set(), operation))
                versions.add(version)
    out = []
    for tag, rows in sorted(groups.items()):
        lines = [
            (method.upper(), code(path), ", ".join(sorted(versions)), needed(operation), operation.get("summary", ""))
            for (method, path), (versions, operation) in rows.items()
        ]
        out += [f"## {tag[0].upper()}{tag[1:]}\n", table(("Method", "Path", "In", "Who", "What"), lines)]
    return "\n".join(out)


# --- rate limits ---------------------------------------------------------------------------------------------------

COUNTED = {"ip": "address", "user": "person", "credential": "API key or session"}
UNITS = {1_000: "second", 60_000: "minute", 3_600_000: "hour", 86_400_000: "day"}


def limits_part() -> str:
    rows = []
    for name, rule in sorted(DECLARED.items()):
        away = "each process counts" if rule.when_away == "open" else "refused, 503"
        rate = code(f"{rule.rate.limit}/{UNITS[rule.rate.interval]}") if rule.rate else "off"
        rows.append((code(name), rate, COUNTED[rule.by], away if rule.shared else "never asked: each process counts"))
    return table(("Limit", "Rate", "Per", "While Redis is away"), rows) if rows else "This tree has none.\n"


# --- metrics -------------------------------------------------------------------------------------------------------


async def metrics_text(app: FastAPI) -> str:
    """What a scrape says after two requests, so that metrics with labels show them; empty when there is no /metrics."""
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost") as client:
        for path in ("/", "/nothing-here"):
            await client.get(path)
        answer = await client.get("/metrics")
    return answer.text if answer.status_code == 200 else ""


def metrics_part(text: str) -> str:
    if not text:
        return "This tree has no `/metrics`.\n"
    rows: list[Row] = []
    for family in text_string_to_metric_families(text):
        labels = sorted({label for sample in family.samples for label in sample.labels} - {"le", "quantile"})
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append((code(name), family.type, ", ".join(map(code, labels)), family.documentation))
    return table(("Metric", "Type", "Labels", "Meaning"), rows)


# --- commands ------------------------------------------------------------------------------------------------------


def scripts() -> dict[str, str]:
    """Script → the comment at its top."""
    found = {}
    for path in sorted((ROOT / "scripts").iterdir()):
        if path.is_file() and not path.suffix:
            comment = re.match(r"#!.*\n((?:#.*\n)*)", path.read_text())
            found[path.name] = "\n".join(line.strip("# ") for line in comment[1].splitlines()) if comment else ""
    return found


def subcommands() -> dict[str, tuple[argparse.ArgumentParser, str, list[str]]]:
    """Command → its parser, its help, its other names."""
    (action,) = [one for one in parser()._actions if isinstance(one, argparse._SubParsersAction)]  # noqa: SLF001
    said = {str(one.dest).split(" ", maxsplit=1)[0]: one.help or "" for one in action._choices_actions}  # noqa: SLF001
    found: dict[str, tuple[argparse.ArgumentParser, str, list[str]]] = {}
    for name, sub in action.choices.items():
        if main := next((known for known, (other, _, _) in found.items() if other is sub), None):
            found[main][2].append(name)
        else:
            found[name] = (sub, said.get(name, ""), [])
    return found


def arguments_of(sub: argparse.ArgumentParser) -> Iterator[str]:
    for action in sub._actions:  # noqa: SLF001
        if isinstance(action, argparse._HelpAction):  # noqa: SLF001
            continue
        name = " ".join(action.option_strings) or str(action.metavar or action.dest).upper()
        text = f": {action.help}" if action.help else ""
        default = "" if action.default in (None, False) or "default" in text else f" (default: {code(action.default)})"
        yield f"- {code(name)}{text}{default}"


def commands_part() -> str:
    out = []
    for name, (sub, text, others) in subcommands().items():
        also = f" Also called {', '.join(map(code, others))}." if others else ""
        out += [f"### {name}\n", f"{text.rstrip('.')}.{also}\n", "\n".join(arguments_of(sub)) + "\n"]
    return "\n".join(out)


USAGE = re.compile(r"\./scripts/\S+(?: (?:\[[^\]]*\]|\"[^\"]*\"|\||new\b|build\b|serve\b|-\S+|[A-Z]+\b))*")


def scripts_part() -> str:
    """The scripts and their comments, with what is to be typed set as code."""
    rows = []
    for name, text in scripts().items():
        marked = USAGE.sub(lambda found: code(found[0].rstrip(" :;")), text)
        rows.append((code(f"./scripts/{name}"), marked.replace("`\n", "`. ").replace("\n", " ")))
    return table(("Script", "What it does"), rows)


# --- all of them ---------------------------------------------------------------------------------------------------


def parts() -> dict[str, str]:
    """Name of a part → its text."""
    registry = load("backend.features", FEATURES)
    app = create_app(Settings(database={"url": "sqlite://"}, log={"level": "error"}))
    document = app.openapi()
    return {
        "settings": settings_part(registry),
        "permissions": permissions_part(registry),
        "limits": limits_part(),
        "errors": errors_part(),
        "api": api_part(with_websockets(document["paths"], registry)),
        "openapi": json.dumps(document, indent=1),
        "metrics": metrics_part(asyncio.run(metrics_text(app))),
        "scripts": scripts_part(),
        "commands": commands_part(),
        "features": features_part(registry),
        "events": events_part(),
    }


if __name__ == "__main__":
    json.dump(parts(), sys.stdout)
