"""The table: an action on many records, and how far it is."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON
from sqlmodel import Field, SQLModel

from backend.core.models import TABLE_OPTIONS, utc_now

WAITING, RUNNING, DONE, CANCELLED, FAILED = "waiting", "running", "done", "cancelled", "failed"
STATES = (WAITING, RUNNING, DONE, CANCELLED, FAILED)


class ConsoleJob(SQLModel, table=True):
    """Records are handled in the order of their keys: those up to `last_key` have been, and none beyond."""

    __tablename__: ClassVar[str] = "console_jobs"
    __audited__: ClassVar[bool] = False  # its beginning, its end and each chunk are events
    __table_args__ = TABLE_OPTIONS

    id: int | None = Field(default=None, primary_key=True)
    user_id: int | None = Field(default=None, foreign_key="users.id", ondelete="SET NULL", index=True)
    user_name: str = Field(max_length=254)
    view: str = Field(max_length=100)
    action: str = Field(max_length=100)
    label: str = Field(max_length=200)  # in words, for when the view is gone
    query: str = Field(max_length=2000)
    up_to: int
    total: int
    done: int = 0
    refused: int = 0
    refusals: list[Any] = Field(default_factory=list, sa_type=JSON, nullable=False)  # the first: [key, why]
    last_key: int = 0
    state: str = Field(default=WAITING, max_length=10, index=True)
    reason: str = Field(default="", max_length=500)  # why it failed
    holder: str = Field(default="", max_length=32)  # the process that works on it
    created_at: datetime = Field(default_factory=utc_now, nullable=False)
    started_at: datetime | None = None
    heartbeat_at: datetime | None = None
    finished_at: datetime | None = Field(default=None, index=True)

    @property
    def handled(self) -> int:
        return self.done + self.refused

    @property
    def is_over(self) -> bool:
        return self.state not in (WAITING, RUNNING)

    def __str__(self) -> str:
        return f"{self.label} ({self.total:,})"
