"""Alembic's entry: the database of the settings, and the tables of every feature, switched off or not."""

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import DropTableOp, MigrationScript, ModifyTableOps
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection
from sqlmodel import SQLModel

from backend.core import feature
from backend.core.config import Settings
from backend.core.db import sync_engine, sync_url
from backend.features import FEATURES

feature.load("backend.features", FEATURES)


def render_item(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Our own column types are written as what they are stored as: old migrations must not import today's code."""
    if kind == "type" and type(item).__module__.startswith("backend."):
        return f"sa.{item.impl!r}"
    return False


def drop_tables_whole(_context: MigrationContext, _revision: object, directives: list[MigrationScript]) -> None:
    """Dropping a table drops its indexes. Autogenerate drops them first, which MySQL refuses under a foreign key."""
    for script in directives:
        for operations in (*script.upgrade_ops_list, *script.downgrade_ops_list):
            dropped = {one.table_name for one in operations.ops if isinstance(one, DropTableOp)}
            operations.ops = [
                one for one in operations.ops if not (isinstance(one, ModifyTableOps) and one.table_name in dropped)
            ]


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_as_batch=True,  # SQLite cannot alter a table in place; batch mode rebuilds it there
        render_item=render_item,
        process_revision_directives=drop_tables_whole,
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
