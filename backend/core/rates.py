"""Rates as people write them, and what a limit says of one request."""

import re
from dataclasses import dataclass
from math import ceil
from typing import Literal

from pyrate_limiter import Duration, Rate

from backend.core.config import BadSetting

SPELLING = re.compile(r"([1-9][0-9]{0,6})/(second|minute|hour|day)")
OFF = ("off", "0")


def rate_of(text: str) -> Rate | None:
    """`60/minute`: 60 at once, and one more each second. `off` → None. BadSetting for any other spelling."""
    if text in OFF:
        return None
    if not (spelled := SPELLING.fullmatch(text)):
        raise BadSetting(f"{text!r} is no rate: write it like 60/minute (second, minute, hour or day), or off")
    return Rate(int(spelled[1]), Duration[spelled[2].upper()])


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a limit says of one request. Times are in seconds."""

    outcome: Literal["allowed", "limited", "unavailable"]  # unavailable: nobody could be asked, so refused
    most: int = 0
    remaining: int = 0
    reset: int = 0  # until `most` are free again
    retry_after: int = 0

    @classmethod
    def of(cls, rate: Rate, *, owed: int, wait: int) -> "Verdict":
        """From GCRA's state in µs: `owed` until all is free again, `wait` until the next one is let through."""
        each = ceil(rate.interval * 1000 / rate.limit)  # rounded as the algorithm does
        return cls(
            outcome="limited" if wait > 0 else "allowed",
            most=rate.limit,
            remaining=max(0, rate.limit - ceil(owed / each)),
            reset=ceil(owed / 1_000_000),
            retry_after=ceil(wait / 1_000_000),
        )

    @property
    def headers(self) -> dict[str, str]:
        """As in drafts 0 to 6 of the IETF's RateLimit header fields."""
        shown = {"Limit": self.most, "Remaining": self.remaining, "Reset": self.reset}
        return {f"RateLimit-{name}": str(number) for name, number in shown.items()}
