"""The table of impersonations that have not run out."""

from datetime import datetime
from typing import ClassVar

from sqlmodel import Field, SQLModel

from backend.core.models import TABLE_OPTIONS


class Impersonation(SQLModel, table=True):
    """Whose session is in whose hands. What they did is in the audit log, and stays."""

    __tablename__: ClassVar[str] = "impersonations"
    __audited__: ClassVar[bool] = False  # events tell of its start and its end
    __table_args__ = TABLE_OPTIONS

    id: int | None = Field(default=None, primary_key=True)
    sid: str = Field(max_length=32, unique=True)  # the session; no foreign key: its end is told when it is gone
    user_id: int = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    actor_id: int = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    begun_in: int  # the actor's own session, with which this one ends
    expires_at: datetime = Field(nullable=False)
