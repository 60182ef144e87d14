"""The audit log's table."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, Index, text
from sqlmodel import Field, SQLModel

from backend.core.models import TABLE_OPTIONS, utc_now

IMPERSONATED = text("impersonator_id IS NOT NULL")  # next to no entries


class AuditEntry(SQLModel, table=True):
    """One change, or one security event. It refers to nothing: accounts and records may go, the history stays."""

    __tablename__: ClassVar[str] = "audit_log"
    __audited__: ClassVar[bool] = False
    # Each filter's index ends with the key, by which the log is read: newest first, from a cursor on.
    __table_args__ = (
        Index(None, "actor_id", "id"),
        Index(None, "action", "id", postgresql_ops={"action": "varchar_pattern_ops"}),  # asked by how it begins
        Index(None, "subject_type", "subject_id", "id"),
        Index(None, "address", "id"),
        Index(None, "impersonator_id", "id", postgresql_where=IMPERSONATED, sqlite_where=IMPERSONATED),
        TABLE_OPTIONS,
    )

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(default_factory=utc_now, nullable=False, index=True)
    actor_id: int | None = None
    actor_name: str = Field(default="", max_length=254)
    impersonator_id: int | None = None  # who acted as the actor
    impersonator_name: str | None = Field(default=None, max_length=254)
    via: str = Field(max_length=20)
    credential: int | None = None
    action: str = Field(max_length=100)
    subject_type: str = Field(default="", max_length=64)
    subject_id: str = Field(default="", max_length=100)
    changes: dict[str, Any] = Field(default_factory=dict, sa_type=JSON, nullable=False)
    details: dict[str, Any] = Field(default_factory=dict, sa_type=JSON, nullable=False)
    address: str = Field(default="", max_length=64)
    user_agent: str = Field(default="", max_length=200)
    request_id: str = Field(default="", max_length=64, index=True)

    @property
    def who(self) -> str:
        """All who had a hand in it, for people."""
        name = self.actor_name or self.via
        return f"{name}, impersonated by {self.impersonator_name}" if self.impersonator_name else name

    def __str__(self) -> str:
        return f"{self.action} {self.subject_id}".strip()
