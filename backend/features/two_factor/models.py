"""The tables of second factors: a secret per person, and their recovery codes."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import BigInteger
from sqlmodel import Field, SQLModel

from backend.core.models import TABLE_OPTIONS, SecretText, utc_now


class TotpSecret(SQLModel, table=True):
    """What an authenticator app and we share. Not asked for until its owner has shown that the app has it."""

    __tablename__: ClassVar[str] = "totp_secrets"
    __audited__: ClassVar[bool] = False  # events say what matters
    __table_args__ = TABLE_OPTIONS

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="users.id", ondelete="CASCADE", unique=True)
    encrypted: str = Field(sa_type=SecretText(255), repr=False)  # we must know it to compute codes: no hash will do
    created_at: datetime = Field(default_factory=utc_now, nullable=False)
    confirmed_at: datetime | None = None
    last_used_step: int = Field(default=0, sa_type=BigInteger, nullable=False)  # a code is good once: RFC 6238 §5.2


class RecoveryCode(SQLModel, table=True):
    """Good once, instead of a code of the app. Only its SHA-256 is here."""

    __tablename__: ClassVar[str] = "recovery_codes"
    __audited__: ClassVar[bool] = False  # events say what matters
    __table_args__ = TABLE_OPTIONS

    id: int | None = Field(default=None, primary_key=True)
    user_id: int = Field(foreign_key="users.id", ondelete="CASCADE", index=True)
    code_hash: str = Field(sa_type=SecretText(64), repr=False)
    used_at: datetime | None = None
