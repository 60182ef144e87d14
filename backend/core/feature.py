"""The contract: all that a feature can contribute, and the registry that reads it."""

import importlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

from fastapi import APIRouter, FastAPI
from sqlmodel import Session as SyncSession
from starlette.middleware import Middleware

from backend.core.auth import Authenticator, ConsoleSignIn, Permission
from backend.core.cache.warming import Warmer
from backend.core.config import EnvSettings, Settings
from backend.core.console import ConsolePage, ConsoleView
from backend.core.console_actions import RecordAction, StartsLongActions
from backend.core.console_history import History
from backend.core.events import Event, Handler, Handlers, gathered
from backend.core.figures import Figure
from backend.core.health import Probe
from backend.core.observing import Observer
from backend.core.status import Panel


class Seed(Protocol):
    """Writes demo data; call `advance(n)` after every n records."""

    def __call__(self, session: SyncSession, count: int, advance: Callable[[int], object]) -> None: ...


# Given path, method and operation of an OpenAPI document, adds to the operation. Clients must not need what it adds.
Describe = Callable[[str, str, dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Feature:
    """What one feature contributes. Declarative on purpose: the whole list is readable here."""

    name: str
    summary: str
    needs: tuple[str, ...] = ()  # features whose code or tables this one uses; nothing else may be imported
    settings: type[EnvSettings] | None = None
    v1: APIRouter | None = None  # under /api/v1, and under /api/v2 unless redefined there
    v2: APIRouter | None = None  # under /api/v2 only
    root: APIRouter | None = None  # outside the API versions
    # Pure ASGI; registry order is outermost first. None where the settings leave it nothing to do.
    middleware: Callable[[Settings], Middleware | None] | None = None
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None
    authenticators: tuple[Authenticator, ...] = ()
    security_schemes: Mapping[str, Mapping[str, Any]] | None = None  # what these are in OpenAPI, besides bearer tokens
    openapi: Describe | None = None  # what it adds to the description of operations, others' too
    on: Mapping[type[Event], Handler] | None = None  # what to do when something happens, in the same transaction
    console_sign_in: ConsoleSignIn | None = None
    permissions: tuple[Permission, ...] = ()
    admin: tuple[type[ConsoleView] | type[ConsolePage], ...] = ()
    # What can be done to records of other features' views in the console, by the view's identity: `user`.
    record_actions: Mapping[str, tuple[RecordAction, ...]] | None = None
    # Runs actions for more records than a transaction should hold. Without a feature that does, they are refused.
    long_actions: StartsLongActions | None = None
    history: History | None = None  # what has been done to a record, for the console
    health: Mapping[str, Probe] | None = None
    # What is told of every request that has ended. None where the settings leave it nothing to do.
    observer: Callable[[FastAPI], Observer | None] | None = None
    status: tuple[Panel, ...] = ()  # its sections of the status page
    home: tuple[Panel, ...] = ()  # its sections of the console's first page
    figures: tuple[Figure, ...] = ()  # what it counts and measures, for metrics and dashboards
    seed: Seed | None = None
    warm: tuple[Warmer, ...] = ()  # what to put into the cache after the start, in the background

    @property
    def all_permissions(self) -> tuple[Permission, ...]:
        """Those that it declares, and those of its views in the console."""
        views = [view for view in self.admin if issubclass(view, ConsoleView)]
        return (*self.permissions, *(one for view in views for one in view.permissions()))


class BadFeature(RuntimeError):
    """The registry and the features disagree; the message says how."""


@dataclass(frozen=True, kw_only=True)
class Registry:
    """The features of one app, in order, with what they contribute put together."""

    features: tuple[Feature, ...]

    @cached_property
    def authenticators(self) -> tuple[Authenticator, ...]:
        return tuple(one for feature in self.features for one in feature.authenticators)

    @property
    def security_schemes(self) -> dict[str, Mapping[str, Any]]:
        return {name: one for feature in self.features for name, one in (feature.security_schemes or {}).items()}

    def middleware(self, settings: Settings) -> list[Middleware]:
        made = [feature.middleware(settings) for feature in self.features if feature.middleware]
        return [one for one in made if one is not None]

    @property
    def credential_headers(self) -> tuple[str, ...]:
        """The request headers in which callers show who they are."""
        schemes = self.security_schemes.values()
        return ("Authorization", *(one["name"] for one in schemes if one.get("in") == "header"))

    @property
    def handlers(self) -> Handlers:
        return gathered(feature.on or {} for feature in self.features)

    @property
    def record_actions(self) -> dict[str, dict[str, RecordAction]]:
        """View → name → what features can do to the records of others."""
        found: dict[str, dict[str, RecordAction]] = {}
        for feature in self.features:
            for view, actions in (feature.record_actions or {}).items():
                found.setdefault(view, {}).update({action.name: action for action in actions})
        return found

    @property
    def permissions(self) -> dict[str, Permission]:
        return {one.name: one for feature in self.features for one in feature.all_permissions}

    @property
    def console_sign_in(self) -> ConsoleSignIn | None:
        return next((feature.console_sign_in for feature in self.features if feature.console_sign_in), None)

    @property
    def long_actions(self) -> StartsLongActions | None:
        return next((feature.long_actions for feature in self.features if feature.long_actions), None)

    @property
    def history(self) -> History | None:
        return next((feature.history for feature in self.features if feature.history), None)

    @property
    def probes(self) -> dict[str, Probe]:
        return {name: probe for feature in self.features for name, probe in (feature.health or {}).items()}

    @property
    def figures(self) -> tuple[Figure, ...]:
        return tuple(one for feature in self.features for one in feature.figures)

    def observers(self, app: FastAPI) -> tuple[Observer, ...]:
        made = [feature.observer(app) for feature in self.features if feature.observer]
        return tuple(one for one in made if one is not None)

    @property
    def status(self) -> tuple[Panel, ...]:
        """What everybody may see comes first."""
        panels = (one for feature in self.features for one in feature.status)
        return tuple(sorted(panels, key=lambda panel: bool(panel.permission)))

    @property
    def home(self) -> tuple[Panel, ...]:
        return tuple(one for feature in self.features for one in feature.home)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def settings(self) -> tuple[type[EnvSettings], ...]:
        """The settings classes of the kernel and of these features."""
        return (Settings, *(feature.settings for feature in self.features if feature.settings))

    def offences(self, settings: Settings) -> list[str]:
        """Every reason why these settings, the kernel's and the features', are unfit for production."""
        sections = [feature.settings.current() for feature in self.features if feature.settings]
        return [line for section in (settings, *sections) for line in section.offences(settings)]

    def describe(self, path: str, method: str, operation: dict[str, Any]) -> None:
        """Let every feature add to an operation of the OpenAPI document."""
        for feature in self.features:
            if feature.openapi:
                feature.openapi(path, method, operation)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Enter every feature's lifespan in order; leave them in reverse."""
        async with AsyncExitStack() as stack:
            for feature in self.features:
                if feature.lifespan:
                    await stack.enter_async_context(feature.lifespan(app))
            yield


def load(package: str, names: Iterable[str], *, off: Iterable[str] = ()) -> Registry:
    """Import `package.name` for each name and take its `feature`.

    Features named in `off` are left out of the registry (their tables stay known, as all are imported).
    BadFeature when a name is unknown, listed twice, or needs something that is off or comes later.
    """
    names, off = tuple(names), frozenset(off)
    if unknown := off - set(names):
        raise BadFeature(f"FEATURES_OFF names unknown features: {', '.join(sorted(unknown))}")
    features: list[Feature] = []
    for name in names:
        feature: Feature = importlib.import_module(f"{package}.{name}").feature
        if feature.name != name:
            raise BadFeature(f"{package}.{name} calls itself {feature.name!r}")
        if name in off:
            continue
        present = {one.name for one in features}
        if name in present:
            raise BadFeature(f"{name!r} is listed twice")
        for one in features:
            theirs = {permission.name for permission in one.all_permissions}
            if taken := {mine.name for mine in feature.all_permissions} & theirs:
                raise BadFeature(f"{name!r} and {one.name!r} both declare the permission {min(taken)}")
        if missing := set(feature.needs) - present:
            raise BadFeature(f"{name!r} needs {', '.join(sorted(missing))}: list it before, and do not switch it off")
        features.append(feature)
    return Registry(features=tuple(features))
