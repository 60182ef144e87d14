"""What goes in and out of the audit log's API."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from backend.core.db import MAX_ID
from backend.core.schemas import Moment, Output, Search


class AuditFilter(BaseModel):
    """Which entries to list; all conditions hold at once."""

    actor_id: int | None = Field(None, ge=1, le=MAX_ID, description="The account that did it")
    impersonator_id: int | None = Field(None, ge=1, le=MAX_ID, description="The account that acted as another")
    action: Search = Field("", description="How the action begins: `users.` or `sign_in.failed`")
    subject_type: Search = Field("", description="The table of the record that it is about")
    subject_id: Search = Field("", description="The key of that record")
    since: Moment | None = Field(None, description="Not before this")
    until: Moment | None = Field(None, description="Before this")
    request_id: Search = Field("", description="`X-Request-ID` of the answer")
    address: Search = Field("", description="The caller's address, exactly")


class AuditEntryOut(Output):
    """One change or security event. Secrets are never in it."""

    id: int = Field(examples=[4711])
    at: datetime
    actor_id: int | None = Field(examples=[7], description="Who did it; null when nobody was signed in")
    actor_name: str = Field(examples=["ada@example.com"], description="Kept when the account is gone")
    impersonator_id: int | None = Field(examples=[1], description="Who acted as that account; null: nobody did")
    impersonator_name: str | None = Field(examples=["admin@example.com"])
    via: str = Field(
        examples=["token"],
        description="`token`, `console`, `api_key` or `impersonation`; `anonymous`: a request by nobody known; "
        "`system`: no request",
    )
    credential: int | None = Field(examples=[12], description="The session, or the API key")
    action: str = Field(examples=["users.updated"])
    subject_type: str = Field(examples=["users"], description="The table, empty when it is about no record")
    subject_id: str = Field(examples=["7"])
    changes: dict[str, list[Any]] = Field(
        examples=[{"full_name": ["Ada Byron", "Ada Lovelace"], "password_hash": ["•••", "•••"]}],
        description="Field → what it held before and after",
    )
    details: dict[str, Any] = Field(examples=[{"method": "password"}], description="What an event tells besides")
    address: str = Field(examples=["203.0.113.7"])
    user_agent: str = Field(examples=["Mozilla/5.0 (X11; Linux x86_64)"])
    request_id: str = Field(examples=["5f0c6c1e8a1f4f0fb6a7d4d5a1c9e7b2"])
