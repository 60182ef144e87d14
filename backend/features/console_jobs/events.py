"""What happens to background actions. What they do to records is told by `ConsoleActed`, chunk by chunk."""

from dataclasses import dataclass
from typing import ClassVar

from backend.core.events import SecurityEvent


@dataclass(frozen=True, kw_only=True)
class ConsoleJobStarted(SecurityEvent):
    """Somebody asked for an action on many records."""

    action: ClassVar[str] = "console_job.started"
    user_id: int | None = None
    job: int
    view: str
    done: str
    query: str
    total: int


@dataclass(frozen=True, kw_only=True)
class ConsoleJobEnded(SecurityEvent):
    """It is done, cancelled or failed."""

    action: ClassVar[str] = "console_job.ended"
    user_id: int | None = None
    job: int
    state: str
    records: int
    refused: int
