"""What the API says about incidents and uptime. All of it is public: no hosts, errors, versions, people."""

from datetime import date, datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from backend.core.schemas import Input, LongText, Name, Output, absent

Status = Literal["investigating", "identified", "monitoring", "resolved"]
Component = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.:-]{1,50}$")]
Components = Annotated[list[Component], Field(max_length=20, examples=[["database"]])]
Title = Annotated[Name, Field(examples=["Payments are slow"])]
Text = Annotated[LongText, Field(examples=["We have found the cause and are on it."])]
Share = Annotated[float | None, Field(examples=[0.9995], description="Of the looks, 0 to 1; null: nobody looked")]


class IncidentIn(Input):
    """A new incident, and what people are told first."""

    title: Title
    components: Components = Field(default_factory=list)
    status: Status = "investigating"
    text: Text = ""


class IncidentPatch(Input):
    """The fields to change; what is left out stays. For a new status, add an update."""

    title: Title = absent()
    components: Components = absent()


class UpdateIn(Input):
    """What people are told now. `resolved` closes the incident, any other status opens it again."""

    status: Status
    text: Text = ""


class UpdateOut(Output):
    """What people were told."""

    id: int = Field(examples=[12])
    status: Status
    text: str = Field(examples=["We have found the cause and are on it."])
    at: datetime


class IncidentOut(Output):
    """Something that does not, or did not, work as it should."""

    id: int = Field(examples=[7])
    title: str = Field(examples=["Payments are slow"])
    components: list[str] = Field(examples=[["database"]])
    status: Status
    opened_at: datetime
    resolved_at: datetime | None
    automatic: bool = Field(description="Whether it opened by itself")
    updates: list[UpdateOut] = Field(description="The newest first")


class UptimeOut(Output):
    """How often a component was up when it was looked at."""

    component: str = Field(examples=["database"])
    day: Share = Field(description="The last 24 hours")
    week: Share = Field(description="The last 7 days")
    quarter: Share = Field(description="The last 90 days")


class DayOut(Output):
    """One day (UTC) of a component. `uptime` is null when nobody looked: that is not known to be up."""

    day: date
    uptime: Share
    looks: int


class LatencyOut(Output):
    """How long a component took to answer in one hour, in milliseconds; null when there is no such look."""

    at: datetime
    mean: float | None
    max: float | None


class ComponentOut(Output):
    """A part of the system, as it is now."""

    name: str = Field(examples=["database"])
    status: Literal["up", "down"]
    latency_ms: float = Field(examples=[0.42])


class History(Output):
    """What is read from the database, and remembered while that is away."""

    uptime: list[UptimeOut]
    incidents: list[IncidentOut]


class StatusOut(Output):
    """All that a status page shows."""

    status: Literal["ok", "degraded", "down"]
    components: list[ComponentOut]
    uptime: list[UptimeOut]
    incidents: list[IncidentOut] = Field(description="Those that are open, the newest first")
