"""Alembic's entry: the database of the settings, and the tables of every feature, switched off or not."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from graphlib import TopologicalSorter
from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import AddColumnOp, CreateTableOp, DropTableOp, MigrationScript, ModifyTableOps
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Boolean, Column, Connection, DateTime, DefaultClause, Index, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.sql.schema import ScalarElementColumnDefault
from sqlalchemy.types import NullType
from sqlmodel import SQLModel
from sqlmodel.sql.sqltypes import UTCDateTime

from backend.core import feature
from backend.core.config import Settings
from backend.core.db import sync_engine, sync_url
from backend.core.models import TABLE_OPTIONS
from backend.features import FEATURES

POLL = 0.2  # seconds between two looks at whether another process is done migrating
# Both locks are the session's: they outlast the transactions of a migration, and end with the connection, also when the
# process is killed. PostgreSQL's belong to one database, MySQL's to the server. SQLite lets in one writer anyway.
TRY_LOCK = {
    "postgresql": "SELECT pg_try_advisory_lock(hashtext('migrations'))",
    "mysql": "SELECT GET_LOCK(CONCAT('migrations-', MD5(DATABASE())), 0)",
}
SQLITE = sqlite_dialect.dialect()  # stores what it can as plain text and numbers

feature.load("backend.features", FEATURES)


def render_item(kind: str, item: Any, _context: AutogenContext) -> str | Literal[False]:
    """Our own column types are written as what they are stored as: old migrations must not import today's code."""
    if kind == "type" and type(item).__module__.startswith("backend."):
        return f"sa.{item.impl!r}"
    return False


def is_compared(found: Any, _name: str | None, _kind: str, reflected: bool, _meant: Any) -> bool:
    """Not indexes on expressions: migrations make them by hand, and of our databases only PostgreSQL shows them."""
    by_hand = reflected and isinstance(found, Index) and not all(isinstance(one, Column) for one in found.expressions)
    return not by_hand


def generalise(column: Column[Any]) -> None:
    """A column as it was read from one database, for a table that is to be made again on any of them."""
    column.server_default = None  # spelled in that database's SQL, and of no use to an empty table
    general = column.type.as_generic(allow_nulltype=True)
    if isinstance(column.type, mysql.TINYINT) and column.type.display_width == 1:
        column.type = Boolean()
    elif isinstance(general, DateTime):
        column.type = UTCDateTime()
    elif isinstance(general, String):
        column.type = String(general.length) if general.length else Text()
    elif not isinstance(general, NullType):
        column.type = general


def parents_first(operations: list[Any]) -> list[Any]:
    """Operations on whole tables, those first that others refer to."""
    by_name = {one.table_name: one for one in operations}
    references = {name: one.to_table().foreign_keys for name, one in by_name.items()}
    parents = {name: {key.target_fullname.split(".")[-2] for key in keys} - {name} for name, keys in references.items()}
    order = TopologicalSorter({name: found & by_name.keys() for name, found in parents.items()}).static_order()
    return [by_name[name] for name in order]


def drop_tables_whole(_context: MigrationContext, _revision: object, directives: list[MigrationScript]) -> None:
    """Dropping a table drops its indexes. Autogenerate drops them first, which MySQL refuses under a foreign key.

    It drops tables in any order, too: what refers to others has to go first. The way back makes the table again, from
    what the database at hand told of it: that must do on the others, too.
    """
    for script in directives:
        for operations in (*script.upgrade_ops_list, *script.downgrade_ops_list):
            dropped = {one.table_name for one in operations.ops if isinstance(one, DropTableOp)}
            operations.ops = [
                one for one in operations.ops if not (isinstance(one, ModifyTableOps) and one.table_name in dropped)
            ]
        for operations in script.upgrade_ops_list:
            drops = [one for one in operations.ops if isinstance(one, DropTableOp)]
            operations.ops = [one for one in operations.ops if one not in drops] + parents_first(drops)[::-1]
        for operations in script.downgrade_ops_list:
            made = [one for one in operations.ops if isinstance(one, CreateTableOp)]
            operations.ops = parents_first(made) + [one for one in operations.ops if one not in made]
            for table in made:
                table.kw = dict(TABLE_OPTIONS)
                for column in (one for one in table.columns if isinstance(one, Column)):
                    generalise(column)


def fill_new_columns(_context: MigrationContext, _revision: object, directives: list[MigrationScript]) -> None:
    """A new column that must not be null gets the model's plain default for the rows there are, as it is stored.

    Without it upgrading would fail. A default that is computed has to be written into the migration by hand.
    """
    changes = (one for script in directives for operations in script.upgrade_ops_list for one in operations.ops)
    for added in (one for change in changes for one in getattr(change, "ops", ()) if isinstance(one, AddColumnOp)):
        column, default = added.column, added.column.default
        unfilled = not column.nullable and column.server_default is None
        if unfilled and isinstance(default, ScalarElementColumnDefault):
            store = column.type.dialect_impl(SQLITE).bind_processor(SQLITE)
            value = getattr(default.arg, "value", default.arg)
            column.server_default = DefaultClause(str(store(value) if store else value))


def tidy(context: MigrationContext, revision: object, directives: list[MigrationScript]) -> None:
    """What becomes of an autogenerated migration before it is written."""
    drop_tables_whole(context, revision, directives)
    fill_new_columns(context, revision, directives)


def orphans(connection: Connection) -> set[Any]:
    """Rows of SQLite that refer to missing ones."""
    return {tuple(row) for row in connection.exec_driver_sql("PRAGMA foreign_key_check")}


@contextmanager
def rebuilding_tables_of_sqlite(connection: Connection) -> Iterator[None]:
    """Batch mode drops the old table; with foreign keys on, SQLite would clear or delete the rows that refer to it.

    The switch works outside of transactions only: it is thrown on the driver's connection, before one begins.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def take_turns(connection: Connection) -> None:
    """Wait until no other process migrates this database: of two at once, the second finds nothing left to do.

    Asking again and again, because waiting inside of one statement would hold up a CREATE INDEX CONCURRENTLY.
    """
    if attempt := TRY_LOCK.get(connection.dialect.name):
        while not connection.exec_driver_sql(attempt).scalar():
            connection.rollback()
            time.sleep(POLL)
        connection.rollback()  # ends the transaction that asking began, so that Alembic begins its own


def run(connection: Connection) -> None:
    take_turns(connection)
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        render_as_batch=True,  # SQLite cannot alter a table in place; batch mode rebuilds it there
        render_item=render_item,
        process_revision_directives=tidy,
        include_object=is_compared,
        transactional_ddl=connection.dialect.name != "mysql",  # SQLite's is, too, since we begin its transactions
    )
    sqlite = connection.dialect.name == "sqlite"
    with rebuilding_tables_of_sqlite(connection), context.begin_transaction():
        before = orphans(connection) if sqlite else set()
        context.run_migrations()
        if sqlite and orphans(connection) - before:
            raise RuntimeError("A migration left rows that refer to missing ones; nothing was changed")


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
    try:
        with engine.connect() as connection:
            run(connection)
    finally:
        engine.dispose()  # with it goes the lock, of a migration that failed, too


if context.is_offline_mode():
    run_offline()
else:
    run_online()
