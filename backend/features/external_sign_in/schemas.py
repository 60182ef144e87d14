"""What goes in and out of sign-in with others."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

from backend.core.schemas import Input, Output

# A path on this very site: `//host`, `/\host` and `https:host` would lead elsewhere (browsers read `\` as `/`).
OWN_PATH = r"^(/([!-.0-\[\]-~][!-\[\]-~]*)?)?$"
Next = Annotated[str, StringConstraints(max_length=500, pattern=OWN_PATH)]


class ProviderOut(BaseModel):
    """Somebody who may vouch for people, and where signing in with them begins."""

    name: str = Field(examples=["google"])
    label: str = Field(examples=["Google"], description="For a button")
    start_url: str = Field(examples=["/api/v1/auth/external/google/start"])


class LinkRequest(Input):
    """Where to go when it is done."""

    next: Next = Field("", description="A path on this site; empty: answer with the identity", examples=["/profile"])


class LinkStart(BaseModel):
    """Send the browser that asked to this address; it has got a cookie that belongs to it."""

    url: str = Field(examples=["https://accounts.google.com/o/oauth2/v2/auth?client_id=…"])


class IdentityOut(Output):
    """An identity elsewhere that opens your account."""

    id: int
    provider: str = Field(examples=["google"])
    email: str = Field(examples=["ada@example.com"], description="Its address there, when it was last used")
    created_at: datetime
    last_used_at: datetime | None
