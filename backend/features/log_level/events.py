"""What is done to the log, for the log of who did what."""

from dataclasses import dataclass
from typing import ClassVar

from backend.core.events import SecurityEvent


@dataclass(frozen=True, kw_only=True)
class LogLevelChanged(SecurityEvent):
    """The log says more, or less, for so many seconds. It is about no account."""

    action: ClassVar[str] = "log_level.changed"
    user_id: None = None
    level: str
    seconds: int
