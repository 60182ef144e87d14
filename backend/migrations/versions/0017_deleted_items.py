"""deleted items that can be restored, and accounts found by how their address begins

Revision: 0017, after 0016
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("items", schema=None) as batch_op:
        batch_op.add_column(sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
        batch_op.create_index(
            "ix_items_deleted_at",
            ["deleted_at"],
            unique=False,
            postgresql_where=sa.text("deleted_at IS NOT NULL"),
            sqlite_where=sa.text("deleted_at IS NOT NULL"),
        )
    if op.get_context().dialect.name == "postgresql":  # the others' ordinary indexes know how a text begins
        op.execute("CREATE INDEX ix_users_email_lower ON users (lower(email) text_pattern_ops)")


def downgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP INDEX IF EXISTS ix_users_email_lower")
    with op.batch_alter_table("items", schema=None) as batch_op:
        batch_op.drop_index("ix_items_deleted_at")
        batch_op.drop_column("deleted_at")
