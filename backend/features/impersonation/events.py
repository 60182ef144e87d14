"""What is told of impersonations."""

from dataclasses import dataclass
from typing import ClassVar

from backend.core.events import SecurityEvent


@dataclass(frozen=True, kw_only=True)
class ImpersonationStarted(SecurityEvent):
    """Somebody, who is the actor of this entry, got a token for this account. `expires_at`: when it ends by itself."""

    action: ClassVar[str] = "impersonation.started"
    user_id: int
    session_id: int
    reason: str
    expires_at: str


@dataclass(frozen=True, kw_only=True)
class ImpersonationEnded(SecurityEvent):
    """Before its time; by whoever is the actor of this entry. `impersonator_id`: who had acted as this account."""

    action: ClassVar[str] = "impersonation.ended"
    user_id: int
    impersonator_id: int
