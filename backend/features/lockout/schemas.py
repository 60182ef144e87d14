"""What the API says about delays."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from backend.core.schemas import Output


class DelayOut(Output):
    """Somebody has to wait before they may try again."""

    kind: Literal["pair", "account"] = Field(description="`pair`: from that address; `account`: from new addresses")
    address: str = Field(examples=["203.0.113.7"], description="Address, or IPv6 network; empty for `account`")
    failures: int = Field(examples=[7])
    blocked_until: datetime


class LockoutOut(Output):
    """Whether, from where, and until when sign-ins to an account are refused."""

    delays: list[DelayOut] = Field(description="The longest first; empty when nobody has to wait")
