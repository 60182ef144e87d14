"""The table of API keys."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import Text
from sqlmodel import Field, SQLModel

from backend.core.models import TABLE_OPTIONS, SecretText, utc_now


class ApiKey(SQLModel, table=True):
    """What a service shows instead of a token. The key itself is not here: only its start, and its SHA-256.

    Without a version: each use would be an edit.
    """

    __tablename__: ClassVar[str] = "api_keys"
    __table_args__ = TABLE_OPTIONS

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    name: str = Field(max_length=200)
    prefix: str = Field(max_length=20, unique=True)
    key_hash: str = Field(sa_type=SecretText(64), unique=True, repr=False)
    scopes: str = Field(sa_type=Text, nullable=False, description="Permissions, separated by blanks")
    created_at: datetime = Field(default_factory=utc_now, nullable=False)
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    last_used_address: str = Field(max_length=64, default="")
    replaced_by: int | None = Field(default=None, foreign_key="api_keys.id", ondelete="SET NULL", index=True)
    revoked_at: datetime | None = None

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"
