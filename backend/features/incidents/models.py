"""The tables: who looks, what is up, what was up, and incidents."""

from datetime import datetime
from typing import ClassVar

from sqlalchemy import Double, Index
from sqlmodel import Field, Relationship, SQLModel, col

from backend.core.models import TABLE_OPTIONS, Record, StoredMoment, utc_now

NAME_LENGTH = 100  # of a component
HOUR, DAY = "hour", "day"


class HealthLease(SQLModel, table=True):
    """Which process looks at the components, and until when it may. One row."""

    __tablename__: ClassVar[str] = "health_lease"
    __audited__: ClassVar[bool] = False
    __table_args__ = TABLE_OPTIONS

    name: str = Field(max_length=20, primary_key=True)
    holder: str = Field(max_length=32)  # a random number of that process's: hosts are nobody's business
    expires_at: datetime
    # The number of what the holder stored last: it tells what became of a COMMIT whose answer was lost.
    stored: int = 0


class ComponentState(SQLModel, table=True):
    """What a component was at the last look, and since when."""

    __tablename__: ClassVar[str] = "component_states"
    __audited__: ClassVar[bool] = False
    __table_args__ = TABLE_OPTIONS

    component: str = Field(max_length=NAME_LENGTH, primary_key=True)
    up: bool
    since: datetime
    failures: int = 0  # looks in a row at which it was down
    looked_at: datetime


class StateChange(SQLModel, table=True):
    """That a component went down, or came up, at this moment; also how it was when first looked at."""

    __tablename__: ClassVar[str] = "component_changes"
    __audited__: ClassVar[bool] = False
    __table_args__ = TABLE_OPTIONS

    id: int | None = Field(default=None, primary_key=True)
    component: str = Field(max_length=NAME_LENGTH)
    up: bool
    at: datetime = Field(index=True)


class Rollup(SQLModel, table=True):
    """The looks at one component in one hour, or in one day (UTC). Each look counts in both; hours are kept shortly."""

    __tablename__: ClassVar[str] = "component_looks"
    __audited__: ClassVar[bool] = False
    __table_args__ = (Index("ix_component_looks_span_starts_at", "span", "starts_at"), TABLE_OPTIONS)

    component: str = Field(max_length=NAME_LENGTH, primary_key=True)
    span: str = Field(max_length=4, primary_key=True)
    starts_at: datetime = Field(primary_key=True)
    looks: int
    looks_up: int
    latency_sum: float = Field(sa_type=Double)  # ms, of the looks that found it up; MySQL's FLOAT has seven digits
    latency_max: float = Field(sa_type=Double)


class IncidentUpdate(SQLModel, table=True):
    """What people were told at one moment."""

    __tablename__: ClassVar[str] = "incident_updates"
    __table_args__ = TABLE_OPTIONS

    id: int | None = Field(default=None, primary_key=True)
    incident_id: int | None = Field(default=None, foreign_key="incidents.id", ondelete="CASCADE", index=True)
    status: str = Field(max_length=20)
    text: str = Field(max_length=5000, default="")
    at: datetime = Field(default_factory=utc_now, nullable=False)
    by_id: int | None = Field(default=None, foreign_key="users.id", ondelete="SET NULL", index=True)


class Incident(Record, table=True):
    """Something that does not work as it should, in the words that everybody may read."""

    __tablename__: ClassVar[str] = "incidents"
    __table_args__ = (Index("ix_incidents_resolved_at", "resolved_at"), TABLE_OPTIONS)

    title: str = Field(max_length=200)
    component_names: str = Field(max_length=2000, default="")  # separated by commas
    status: str = Field(max_length=20)
    opened_at: datetime = Field(default_factory=utc_now, sa_type=StoredMoment, nullable=False)
    resolved_at: datetime | None = None
    automatic: bool = False
    # The component, while an incident that opened by itself is open: the database itself refuses a second one.
    watched: str | None = Field(default=None, max_length=NAME_LENGTH, unique=True)
    updates: list[IncidentUpdate] = Relationship(
        cascade_delete=True, sa_relationship_kwargs={"lazy": "selectin", "order_by": col(IncidentUpdate.id).desc()}
    )

    @property
    def components(self) -> list[str]:
        return [name for name in self.component_names.split(",") if name]

    def __str__(self) -> str:
        return self.title
