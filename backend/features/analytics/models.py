"""The table of what was counted."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import BigInteger, Index, Integer
from sqlmodel import Field, SQLModel

from backend.core.models import TABLE_OPTIONS, StoredMoment

# Levels: as a process stored it, and the sums of that. The minutes within five minutes stay, as a detail of them: what
# is asked for in steps of a minute is told by these, all else by the five minutes, of which there are far fewer.
FLUSHED, MINUTE, HOUR, DAY, FIVE_MINUTES, DETAIL = range(6)
COARSE = (FLUSHED, MINUTE, FIVE_MINUTES, HOUR, DAY)  # each request once
FINE = (FLUSHED, MINUTE, DETAIL, HOUR, DAY)  # each request once, too
UNTIMED = -(2**15)  # the bin of what has no latency: WebSockets

# SQLite counts keys by itself only where they are called INTEGER.
Key = BigInteger().with_variant(Integer, "sqlite")


class ApiUsage(SQLModel, table=True):
    """Requests of one kind, in one span of time, whose latencies fall into one bin.

    Rows are only ever added, so that no process waits for another; what belongs together is summed by who reads. A
    latency sketch is the rows of its bins: the database merges sketches by adding up.
    """

    __tablename__: ClassVar[str] = "api_usage"
    __audited__: ClassVar[bool] = False
    __table_args__ = (Index(None, "level", "start"), TABLE_OPTIONS)

    id: int | None = Field(default=None, primary_key=True, sa_type=Key)
    level: int
    start: datetime = Field(sa_type=StoredMoment, nullable=False)
    source: str = Field(max_length=64)  # which process stored it, at which flush; empty in sums
    method: str = Field(max_length=10)
    route: str = Field(max_length=200)
    status: int
    client: str = Field(max_length=20)
    probe: bool
    bin: int
    requests: int = Field(sa_type=BigInteger)
    micros: int = Field(sa_type=BigInteger)  # microseconds: whole numbers add up exactly
    statements: int = Field(sa_type=BigInteger)
    sql_micros: int = Field(sa_type=BigInteger)


KINDS = ("method", "route", "status", "client", "probe", "bin")
SUMS = ("requests", "micros", "statements", "sql_micros")
