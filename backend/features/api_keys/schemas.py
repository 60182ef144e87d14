"""What goes in and out of the API keys API."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, Strict, StringConstraints, model_validator

from backend.core.schemas import WHOLE, Input, Moment, Name, Output, absent

KeyName = Annotated[Name, Field(examples=["Nightly import"])]
Scope = Annotated[str, StringConstraints(max_length=64, pattern=r"^[a-z0-9_:.-]+$")]
Days = Annotated[int, Field(ge=1, le=36500), WHOLE]
Hours = Annotated[int, Field(ge=0, le=168), WHOLE]
Prefix = Annotated[str, Field(examples=["mk_AbC12345"], description="The start of the key, to tell it by")]


class ApiKeyIn(Input):
    """A key to create. Without `expires_at` and `expires_in_days` it is good for as long as keys may be."""

    name: KeyName
    scopes: list[Scope] = Field(
        max_length=200, examples=[["items:read"]], description="What it may do, as far as you may do it too"
    )
    expires_at: Annotated[Moment, Strict(False)] | None = Field(None, examples=["2026-12-31T00:00:00Z"])
    expires_in_days: Days | None = Field(None, description="Instead of `expires_at`")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.expires_at and self.expires_in_days:
            raise ValueError("Give expires_at or expires_in_days, not both")
        return self


class ApiKeyPatch(Input):
    """The new name."""

    name: KeyName


class Rotation(Input):
    """For how long the old key works on. Left out, it is the server's default."""

    overlap_hours: Hours = absent()


def _listed(scopes: object) -> object:
    return scopes.split() if isinstance(scopes, str) else scopes


class ApiKeyOut(Output):
    """An API key as its owner sees it: never the key itself."""

    id: int
    user_id: int = Field(description="Whose it is")
    name: KeyName
    prefix: Prefix
    scopes: Annotated[list[str], BeforeValidator(_listed)] = Field(examples=[["items:read"]])
    created_at: datetime
    expires_at: datetime | None = Field(description="Null: never")
    last_used_at: datetime | None = Field(description="A minute or so exact; null: not yet")
    last_used_address: str = Field(examples=["203.0.113.7"])
    replaced_by: int | None = Field(description="The key that it was rotated to")
    revoked_at: datetime | None


class NewApiKey(ApiKeyOut):
    """A key that was just made. `key` is shown this once."""

    key: str = Field(examples=["mk_AbC12345_Jx0Yp3Zb1c4o9m5N7qKf2sWvR8tUaEdGhLiBnMzXyQw"])
