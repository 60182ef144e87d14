"""The tables: what each process said last, and the answers that failed."""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import JSON, BigInteger, Double
from sqlmodel import Field, SQLModel

from backend.core.models import TABLE_OPTIONS


class ProcessReport(SQLModel, table=True):
    """What a process said of itself last. It takes its row with it when it stops."""

    __tablename__: ClassVar[str] = "process_reports"
    __audited__: ClassVar[bool] = False
    __table_args__ = TABLE_OPTIONS

    name: str = Field(max_length=32, primary_key=True)  # random: hosts and process ids come again
    host: str = Field(max_length=255)
    pid: int
    version: str = Field(max_length=50)
    started_at: datetime
    seen_at: datetime = Field(index=True)
    per_second: float = Field(sa_type=Double)  # requests, since what it said before
    memory: int = Field(sa_type=BigInteger)  # bytes
    figures: dict[str, Any] = Field(default_factory=dict, sa_type=JSON, nullable=False)


class FailedAnswer(SQLModel, table=True):
    """An answer of 500 or above."""

    __tablename__: ClassVar[str] = "failed_answers"
    __audited__: ClassVar[bool] = False
    __table_args__ = TABLE_OPTIONS

    id: int | None = Field(default=None, primary_key=True)
    at: datetime = Field(index=True)
    process: str = Field(max_length=300)  # host:pid
    method: str = Field(max_length=10)
    route: str = Field(max_length=200)
    status: int
    error: str = Field(max_length=100)  # the exception's class, or the code of the answer
    request_id: str = Field(max_length=64)
