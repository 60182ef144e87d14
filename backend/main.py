"""Composition root: the only module that knows everything, and that nothing imports.

Run it with `uvicorn --factory backend.main:served_app`.
"""

import gc
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import structlog
from fastapi import FastAPI
from sqlalchemy import text
from starlette.middleware import Middleware

import admin
import frontend
from backend import __version__
from backend.core import errors, feature, logging, mailer, openapi, pool, redis, replicas, versioning
from backend.core.breakers import Breakers
from backend.core.cache import Cache
from backend.core.cache import figures as cache_figures
from backend.core.cache.library import library_uses
from backend.core.cache.warming import warming
from backend.core.config import Settings, UnsafeSettings, misspelled
from backend.core.context import RemembersRequest
from backend.core.db import Database, is_memory
from backend.core.dispatch import Dispatch
from backend.core.figures import Figure, Figures
from backend.core.health import Health
from backend.core.observing import IN_PROGRESS, Observe, Observing
from backend.core.outside import Outside
from backend.core.principals import Principals
from backend.core.read_session import read_from
from backend.core.stopping import CloseWhenStopping, Stopping
from backend.core.tallies import Tallies
from backend.core.writers import Writers
from backend.features import FEATURES

log = structlog.get_logger(__name__)

SUMMARY = "A batteries-included FastAPI starter that you clone and own."

COLLECT_AFTER = 5000, 10, 10  # new objects until garbage is looked for: one request makes more than Python's 700

CIRCUITS = Figure(
    name="circuit_state",
    help="1 for the state that a circuit breaker is in: closed, opened or half-opened.",
    labels=("name", "state"),
    together="max",  # one process whose circuit is open is worth knowing
    read=lambda app: app.state.breakers.reading(),
)
FIGURES = (IN_PROGRESS, CIRCUITS, *pool.FIGURES, *mailer.FIGURES, *cache_figures.FIGURES)


def _refuse_unsafe(settings: Settings, registry: feature.Registry) -> None:
    """Production does not start with unsafe values; staging says which they are."""
    offences = registry.offences(settings)
    if offences and settings.environment == "production":
        raise UnsafeSettings(offences)
    if settings.environment == "staging":
        for offence in offences:
            log.warning("unsafe_setting", offence=offence)


def _warn_of_typos(names: Iterable[str]) -> None:
    """A misspelled setting would be ignored in silence. Of features that are off, too: all are imported."""
    for name, likely in misspelled(feature.load("backend.features", names).settings).items():
        log.warning("unknown_setting", name=name, did_you_mean=likely)


async def _database_probe(app: FastAPI) -> None:
    """It answers and has been migrated at all. Its revision is not asked: during a roll-out two versions run."""
    database: Database = app.state.database
    async with database.session(reading=True) as session:
        connection = await session.connection()
        await connection.execute(text("SELECT 1" if is_memory(database.url) else "SELECT 1 FROM alembic_version"))


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    database: Database = app.state.database
    async with AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        if app.state.redis is not None:
            stack.push_async_callback(app.state.redis.aclose)
        stack.push_async_callback(app.state.breakers.close)
        stack.push_async_callback(app.state.outside.close)
        await database.start()
        await stack.enter_async_context(app.state.replicas.watched())
        await stack.enter_async_context(app.state.mailer.running())
        await stack.enter_async_context(app.state.cache.running())
        stack.enter_context(library_uses(app.state.cache))
        await stack.enter_async_context(app.state.registry.lifespan(app))
        warmers = [warmer for feature in app.state.registry.features for warmer in feature.warm]
        await stack.enter_async_context(warming(app, warmers))
        stack.enter_context(app.state.stopping.on_signals())
        yield


@contextmanager
def _nothing_collected() -> Iterator[None]:
    """What is made at the start stays: looking for garbage in it would be a third of the time that it takes."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@_nothing_collected()
def create_app(settings: Settings | None = None) -> FastAPI:
    """The whole application. UnsafeSettings in production with values that only development may have."""
    settings = settings or Settings()
    logging.configure(settings)
    registry = feature.load("backend.features", FEATURES, off=settings.features_off)
    _refuse_unsafe(settings, registry)
    _warn_of_typos(FEATURES)
    stopping = Stopping(settings.server.drain_seconds)
    middleware = [
        Middleware(RemembersRequest),
        Middleware(CloseWhenStopping, stopping=stopping),
        Middleware(Observe),
        *registry.middleware(settings),
    ]
    app = FastAPI(
        title=settings.api.title,
        summary=SUMMARY,
        version=__version__,
        lifespan=_lifespan,
        debug=settings.debug,
        middleware=middleware if settings.debug else [*middleware, Middleware(errors.CatchAll)],
        openapi_url=None,  # ours is in core.openapi
        docs_url=None,  # the docs feature serves these pages from our own files
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.settings = settings
    app.state.registry = registry
    app.state.stopping = stopping
    app.state.database = Database(settings.database)
    app.state.principals = Principals(settings.security.principal_cache_seconds)
    app.state.mailer = mailer.Mailer(settings)
    app.state.tallies = Tallies()
    app.state.database.info |= {
        "handlers": registry.handlers,
        "permissions": registry.permissions,
        "principals": app.state.principals,
        "mailer": app.state.mailer,
        "tallies": app.state.tallies,
    }
    app.state.breakers = Breakers()
    app.state.outside = Outside(settings.outside, app.state.breakers)
    app.state.redis = redis.connect(settings.redis)
    app.state.cache = Cache(settings, app.state.redis, app.state.breakers, vary=registry.credential_headers)
    app.state.cache.listeners.append(app.state.principals.heard)
    app.state.database.info["cache"] = app.state.cache
    sticky = settings.database.replica_sticky_seconds
    writers = Writers(sticky, app.state.redis, app.state.breakers, prefix=settings.redis.prefix)
    app.state.replicas = replicas.Replicas(settings.database, app.state.database, writers)
    read_from(app.state.database, app.state.replicas)
    probes = {
        "database": _database_probe,
        **({"redis": redis.probe} if app.state.redis else {}),
        **({"replicas": replicas.probe} if app.state.replicas.all else {}),
        **registry.probes,
    }
    app.state.health = Health(app, probes)
    app.state.figures = Figures(app, FIGURES + registry.figures)
    app.state.observing = Observing(app, registry.observers(app))
    errors.install(app)
    versioning.include(app, registry)
    app.router.middleware_stack = Dispatch(app.router)
    app.include_router(openapi.router)
    app.openapi = openapi.customise(app, registry)  # type: ignore[method-assign]
    admin.mount(app)
    frontend.mount(app)
    return app


def served_app() -> FastAPI:
    """The app of a process that does nothing else. What is there at the start stays: the garbage collector skips it.

    Looking through half a million objects again and again would cost a busy process as much as all that it is for.
    """
    app = create_app()
    start = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with start(app):  # of ours, which yields no state
            gc.collect()
            gc.freeze()
            gc.set_threshold(*COLLECT_AFTER)
            yield

    app.router.lifespan_context = lifespan
    return app
