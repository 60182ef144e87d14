"""What happens to external identities."""

from dataclasses import dataclass
from typing import ClassVar

from backend.core.events import SecurityEvent


@dataclass(frozen=True, kw_only=True)
class IdentityLinked(SecurityEvent):
    """From now on this identity opens this account. `email`: the address it has at the provider."""

    action: ClassVar[str] = "identity.linked"
    provider: str
    email: str


@dataclass(frozen=True, kw_only=True)
class IdentityUnlinked(SecurityEvent):
    action: ClassVar[str] = "identity.unlinked"
    provider: str
    email: str
