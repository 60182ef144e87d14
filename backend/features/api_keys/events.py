"""What happens to API keys. `prefix` is the part of a key that people are shown."""

from dataclasses import dataclass
from typing import ClassVar

from backend.core.events import SecurityEvent


@dataclass(frozen=True, kw_only=True)
class ApiKeyCreated(SecurityEvent):
    action: ClassVar[str] = "api_key.created"
    key_id: int
    prefix: str
    name: str
    scopes: str


@dataclass(frozen=True, kw_only=True)
class ApiKeyRotated(SecurityEvent):
    """`successor` is the id of the new key; the old one works on until `overlap_ends`."""

    action: ClassVar[str] = "api_key.rotated"
    key_id: int
    prefix: str
    successor: int
    overlap_ends: str


@dataclass(frozen=True, kw_only=True)
class ApiKeyRevoked(SecurityEvent):
    action: ClassVar[str] = "api_key.revoked"
    key_id: int
    prefix: str
