"""Building blocks for request and response schemas."""

import re
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import Path
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, WithJsonSchema

from backend.core.db import MAX_ID

# Text without NUL, which PostgreSQL cannot store. The pattern is in OpenAPI, so that clients know it too.
NO_NUL = r"^[^\x00]*$"
# The same, and neither empty nor padded with white space, of which U+0085 is none to JavaScript, and so to JSON Schema.
TRIMMED = r"^[^\s\x85\x00]([^\x00]*[^\s\x85\x00])?$"


Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=TRIMMED)]
LongText = Annotated[str, StringConstraints(max_length=5000, pattern=NO_NUL)]
Search = Annotated[str, StringConstraints(max_length=100, pattern=NO_NUL)]


def _is_iso(value: object) -> object:
    if isinstance(value, int | float) or (isinstance(value, str) and "-" not in value):
        raise ValueError("Write a moment as in 2026-01-31T09:30:00Z")  # pydantic would take a number of seconds
    return value


def _in_utc(value: datetime) -> datetime:
    try:
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        raise ValueError("This moment is out of range") from None


# A moment; without a zone it means UTC.
Moment = Annotated[datetime, BeforeValidator(_is_iso), AfterValidator(_in_utc)]


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


# For integers, after their bounds: 3.0 is an integer in JSON Schema.
WHOLE = BeforeValidator(_whole)


def _amount(value: object) -> Decimal:
    text = format(value, "f") if isinstance(value, Decimal) else value
    if not isinstance(text, str):
        raise ValueError('Write amounts as text, such as "19.99": JSON numbers are floating point')  # noqa: TRY004
    if not re.fullmatch(AMOUNT, text):
        raise ValueError("Write an amount such as 19.99: not negative, with two decimals at most")
    return Decimal(text)


# An amount of money, sent and answered as text, exact to the cent.
AMOUNT = r"^[0-9]{1,10}(\.[0-9]{1,2})?$"
AMOUNT_SCHEMA = {"type": "string", "pattern": AMOUNT, "examples": ["19.99"]}
Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    WithJsonSchema(AMOUNT_SCHEMA),
]
# The same in an answer: what comes from the database has been looked at.
AmountOut = Annotated[Decimal, WithJsonSchema(AMOUNT_SCHEMA)]


def absent() -> Any:
    """The default of an optional PATCH field: may be left out, but null is an error. Dump with `exclude_unset=True`."""
    return Field(default_factory=lambda: None)


class Input(BaseModel):
    """Base of request bodies: an unknown field is an error, not a silent loss, and no value is guessed at."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Output(BaseModel):
    """Base of response bodies: built from rows, nothing but the declared fields leaves."""

    model_config = ConfigDict(from_attributes=True)


def columns_of(model: type, schema: type[BaseModel]) -> list[Any]:
    """The columns that a schema shows: rows of these cost less than the whole records, which are for changing."""
    return [getattr(model, name) for name in schema.model_fields]


Id = Annotated[int, Path(ge=1, le=MAX_ID, description="Integer key")]
