"""Composition root: the only module that knows everything, and that nothing imports.

Run it with `uvicorn --factory backend.main:create_app`.
"""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog
from fastapi import FastAPI
from sqlalchemy import text
from starlette.middleware import Middleware

import admin
import frontend
from backend import __version__
from backend.core import errors, feature, logging, openapi, redis, versioning
from backend.core.config import Settings, UnsafeSettings, misspelled
from backend.core.db import Database, is_memory
from backend.core.health import Health
from backend.features import FEATURES

log = structlog.get_logger(__name__)

SUMMARY = "A batteries-included FastAPI starter that you clone and own."


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
        await database.start()
        await stack.enter_async_context(app.state.registry.lifespan(app))
        yield


def create_app(settings: Settings | None = None) -> FastAPI:
    """The whole application. UnsafeSettings in production with values that only development may have."""
    settings = settings or Settings()
    logging.configure(settings)
    registry = feature.load("backend.features", FEATURES, off=settings.features_off)
    _refuse_unsafe(settings, registry)
    _warn_of_typos(FEATURES)
    middleware = [one.middleware(settings) for one in registry.features if one.middleware]
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
    app.state.database = Database(settings.database)
    app.state.redis = redis.connect(settings.redis)
    probes = {"database": _database_probe, **({"redis": redis.probe} if app.state.redis else {}), **registry.probes}
    app.state.health = Health(app, probes)
    errors.install(app)
    versioning.include(app, registry)
    app.include_router(openapi.router)
    app.openapi = openapi.customise(app, registry)  # type: ignore[method-assign]
    admin.mount(app)
    frontend.mount(app)
    return app
