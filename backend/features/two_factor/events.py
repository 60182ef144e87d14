"""What happens to second factors."""

from dataclasses import dataclass
from typing import ClassVar

from backend.core.events import SecurityEvent


@dataclass(frozen=True, kw_only=True)
class SecondFactorEnabled(SecurityEvent):
    action: ClassVar[str] = "second_factor.enabled"


@dataclass(frozen=True, kw_only=True)
class SecondFactorDisabled(SecurityEvent):
    """Its owner switched it off."""

    action: ClassVar[str] = "second_factor.disabled"


@dataclass(frozen=True, kw_only=True)
class SecondFactorReset(SecurityEvent):
    """An administrator removed it."""

    action: ClassVar[str] = "second_factor.reset"


@dataclass(frozen=True, kw_only=True)
class RecoveryCodeUsed(SecurityEvent):
    action: ClassVar[str] = "recovery_code.used"
    left: int


@dataclass(frozen=True, kw_only=True)
class RecoveryCodesRenewed(SecurityEvent):
    """The earlier ones are worthless."""

    action: ClassVar[str] = "recovery_codes.renewed"
