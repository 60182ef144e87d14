"""The tables of accounts and console sessions."""

from datetime import datetime
from typing import ClassVar

from sqlmodel import Field, SQLModel

from backend.core.models import TABLE_OPTIONS, Record, utc_now


class User(Record, table=True):
    """A person. `email` is stored in lower case, so that its unique index is one of spellings."""

    __tablename__: ClassVar[str] = "users"

    email: str = Field(max_length=254, unique=True)
    full_name: str = Field(max_length=200, default="")
    password_hash: str = Field(max_length=255, repr=False)
    role: str = Field(max_length=10, default="user", index=True)
    is_active: bool = True

    def __str__(self) -> str:
        return self.email


class ConsoleSession(SQLModel, table=True):
    """A console sign-in. The cookie carries the token, this row only its SHA-256: a leaked table opens nothing."""

    __tablename__: ClassVar[str] = "console_sessions"
    __table_args__ = TABLE_OPTIONS

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    token_hash: str = Field(max_length=64, unique=True, repr=False)
    created_at: datetime = Field(default_factory=utc_now, nullable=False)
    expires_at: datetime = Field(nullable=False)
    address: str = Field(max_length=64, default="")
    user_agent: str = Field(max_length=200, default="")
