"""an index for the search by how a name begins, on PostgreSQL

Revision: 0016, after 0015

Of the name in lower case, as the search compares it; an ordinary index knows no beginnings in most languages' order.
MySQL has no index on an expression, and SQLite does not use one for LIKE: they read the table.
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute("CREATE INDEX ix_items_name_lower ON items (lower(name) text_pattern_ops)")


def downgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        # The table may have been dropped meanwhile, with the feature, and made again without it.
        op.execute("DROP INDEX IF EXISTS ix_items_name_lower")
