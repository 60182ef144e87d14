"""The table of idempotency keys."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import Text
from sqlalchemy.dialects.mysql import MEDIUMTEXT
from sqlmodel import Field, SQLModel

from backend.core.models import TABLE_OPTIONS

# MySQL's plain one ends at 64 KiB. Not bytes: aiomysql cannot send those.
LONG = Text().with_variant(MEDIUMTEXT(), "mysql", "mariadb")


class IdempotencyKey(SQLModel, table=True):
    """A key that a person has used. Of the key itself, only its SHA-256: clients put all kinds of things into it.

    While the request runs, `claim` is a random number that only its process knows; the empty text once it is done.
    """

    __tablename__: ClassVar[str] = "idempotency_keys"
    __table_args__ = TABLE_OPTIONS
    __audited__: ClassVar[bool] = False

    user_id: int = Field(foreign_key="users.id", ondelete="CASCADE", primary_key=True)
    key_hash: str = Field(max_length=64, primary_key=True)
    fingerprint: str = Field(max_length=64)
    claim: str = Field(max_length=32)
    claimed_until: datetime
    expires_at: datetime = Field(index=True)
    answer: str | None = Field(default=None, sa_type=LONG, repr=False)
