"""Building blocks for request and response schemas."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from backend.core.db import MAX_ID

# Text without NUL, which PostgreSQL cannot store. The pattern is in OpenAPI, so that clients know it too.
NO_NUL = r"^[^\x00]*$"
# The same, and neither empty nor padded with white space.
TRIMMED = r"^[^\s\x00]([^\x00]*[^\s\x00])?$"


Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=TRIMMED)]
LongText = Annotated[str, StringConstraints(max_length=5000, pattern=NO_NUL)]
Search = Annotated[str, StringConstraints(max_length=100, pattern=NO_NUL)]


def _in_utc(value: datetime) -> datetime:
    try:
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise ValueError("This moment is out of range") from None


# A moment; without a zone it means UTC.
Moment = Annotated[datetime, AfterValidator(_in_utc)]


def absent() -> Any:
    """The default of an optional PATCH field: may be left out, but null is an error. Dump with `exclude_unset=True`."""
    return Field(default_factory=lambda: None)


class Input(BaseModel):
    """Base of request bodies: a field that the schema does not know is an error, not a silent loss."""

    model_config = ConfigDict(extra="forbid")


class Output(BaseModel):
    """Base of response bodies: built from rows, nothing but the declared fields leaves."""

    model_config = ConfigDict(from_attributes=True)


Id = Annotated[int, Path(ge=1, le=MAX_ID, description="Integer key")]
