"""The tables of accounts, their sessions, and what is good once."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import Index, Text
from sqlmodel import Field, SQLModel

from backend.core.models import TABLE_OPTIONS, Record, SecretText, utc_now


class User(Record, table=True):
    """A person. `email` is stored in lower case, so that its unique index is one of spellings."""

    __tablename__: ClassVar[str] = "users"
    __table_args__ = (Index(None, "created_at", "id"), Index(None, "is_active", "id"), TABLE_OPTIONS)  # for the list

    email: str = Field(max_length=254, unique=True)
    full_name: str = Field(max_length=200, default="")
    email_verified_at: datetime | None = None
    password_hash: str = Field(sa_type=SecretText(255), repr=False)
    role: str = Field(max_length=10, default="user", index=True)
    is_active: bool = True

    @property
    def email_verified(self) -> bool:
        return self.email_verified_at is not None

    def __str__(self) -> str:
        return self.email


class UserSession(SQLModel, table=True):
    """A sign-in, until it ends. `token`: its refresh tokens are a family (RFC 9700 §4.14). `console`: a cookie's."""

    __tablename__: ClassVar[str] = "sessions"
    __audited__: ClassVar[bool] = False
    __table_args__ = TABLE_OPTIONS

    id: int | None = Field(default=None, primary_key=True)
    sid: str = Field(max_length=32, unique=True)  # in access tokens: a key that is never given out again
    user_id: int = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    kind: str = Field(max_length=10)
    method: str = Field(max_length=50, default="password")
    token_hash: str | None = Field(default=None, sa_type=SecretText(64), unique=True, repr=False)
    scope: str | None = Field(default=None, sa_type=Text, description="None: all that the person holds")
    address: str = Field(max_length=64, default="")
    user_agent: str = Field(max_length=200, default="")
    created_at: datetime = Field(default_factory=utc_now, nullable=False)
    last_seen_at: datetime = Field(default_factory=utc_now, nullable=False)
    expires_at: datetime = Field(nullable=False, index=True)


class RefreshToken(SQLModel, table=True):
    """One link of a family. Kept when used, as long as its session: seen again, it gives a thief away."""

    __tablename__: ClassVar[str] = "refresh_tokens"
    __audited__: ClassVar[bool] = False
    __table_args__ = TABLE_OPTIONS

    id: int | None = Field(default=None, primary_key=True)
    session_id: int = Field(foreign_key="sessions.id", ondelete="CASCADE", index=True)
    token_hash: str = Field(sa_type=SecretText(64), unique=True, repr=False)
    created_at: datetime = Field(default_factory=utc_now, nullable=False)
    used_at: datetime | None = None


class OneTimeToken(SQLModel, table=True):
    """What a mail's link carries: good once, for one purpose, for a while. Only its SHA-256 is here."""

    __tablename__: ClassVar[str] = "one_time_tokens"
    __audited__: ClassVar[bool] = False
    __table_args__ = TABLE_OPTIONS

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    purpose: str = Field(max_length=30)
    subject: str = Field(max_length=254, default="")  # what it is about, such as the address to verify
    token_hash: str = Field(sa_type=SecretText(64), unique=True, repr=False)
    created_at: datetime = Field(default_factory=utc_now, nullable=False)
    expires_at: datetime = Field(nullable=False, index=True)
