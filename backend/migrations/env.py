"""Alembic's entry: the database of the settings, and the tables of every feature, switched off or not."""

from alembic import context
from sqlalchemy import Connection
from sqlmodel import SQLModel

from backend.core import feature
from backend.core.config import Settings
from backend.core.db import sync_engine, sync_url
from backend.features import FEATURES

feature.load("backend.features", FEATURES)


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_as_batch=True,  # SQLite cannot alter a table in place; batch mode rebuilds it there
    )
    with context.begin_transaction():
        context.run_migrations()


def run_offline() -> None:
    """`alembic upgrade head --sql` prints the SQL instead of running it."""
    context.configure(url=sync_url(Settings().database.url), target_metadata=SQLModel.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()


def run_online() -> None:
    given = context.config.attributes.get("connection")  # tests bring their own
    if given is not None:
        run(given)
        return
    engine = sync_engine(Settings().database)
    with engine.connect() as connection:
        run(connection)
    engine.dispose()


if context.is_offline_mode():
    run_offline()
else:
    run_online()
