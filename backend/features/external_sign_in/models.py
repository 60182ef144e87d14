"""The table of identities that others vouch for."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import UniqueConstraint
from sqlmodel import Field, SQLModel

from backend.core.models import TABLE_OPTIONS, utc_now


class ExternalIdentity(SQLModel, table=True):
    """Somebody at a provider, who is somebody here. `subject` is the provider's key: addresses change hands."""

    __tablename__: ClassVar[str] = "external_identities"
    __table_args__ = (UniqueConstraint("provider", "subject"), TABLE_OPTIONS)

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    provider: str = Field(max_length=30)
    subject: str = Field(max_length=255)  # OpenID Connect Core §2: ASCII, 255 at most
    email: str = Field(max_length=254, default="")
    created_at: datetime = Field(default_factory=utc_now, nullable=False)
    last_used_at: datetime | None = None

    def __str__(self) -> str:
        return f"{self.email or self.subject} ({self.provider})"
