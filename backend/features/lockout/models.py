"""The table of failed sign-ins. In the database, so that it holds for all processes and over restarts."""

from datetime import datetime
from typing import ClassVar

from sqlmodel import Field, SQLModel

from backend.core.models import TABLE_OPTIONS

PAIR, ACCOUNT, ADDRESS = "pair", "account", "address"


class Throttle(SQLModel, table=True):
    """What is known of one account, one address, or the two together.

    An account is an e-mail address as it was typed, whoever has it: nobody learns from a delay whether it exists. What
    was typed is not kept (it may be a password in the wrong field), only its hash.
    """

    __tablename__: ClassVar[str] = "sign_in_throttles"
    __audited__: ClassVar[bool] = False  # events say what matters
    __table_args__ = TABLE_OPTIONS

    id: int | None = Field(default=None, primary_key=True)
    key_hash: str = Field(max_length=64, unique=True)
    kind: str = Field(max_length=10)
    user_id: int | None = Field(default=None, foreign_key="users.id", ondelete="CASCADE", index=True)
    address: str = Field(max_length=64, default="")  # or the IPv6 network; empty for an account
    failures: int = 0
    last_failure_at: datetime | None = None
    blocked_until: datetime | None = Field(default=None, index=True)
    forgotten_at: datetime = Field(nullable=False, index=True)  # from then on the failures count no more
    familiar_until: datetime | None = None  # of a pair: this person has signed in from there

    def __str__(self) -> str:
        return f"{self.kind} {self.address}".strip()
