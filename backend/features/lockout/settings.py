"""The lockout section of the settings."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core.config import EnvSettings


class LockoutSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="LOCKOUT__")

    pair_failures: int = Field(
        5, ge=1, description="Wrong sign-ins to one account from one address, until the next one has to wait"
    )
    account_failures: int = Field(
        10, ge=1, description="Wrong sign-ins to one account from anywhere, until new addresses have to wait"
    )
    address_failures: int = Field(
        20, ge=1, description="Wrong sign-ins from one address to any accounts, until the next one has to wait"
    )
    max_seconds: int = Field(
        900, ge=1, le=86400, description="Longest wait for an address; it starts at one second and doubles"
    )
    account_max_seconds: int = Field(
        60, ge=1, le=3600, description="Longest wait that strangers can cause somebody who signs in from a new address"
    )
    familiar_days: int = Field(
        30, ge=0, le=365, description="Days for which an address is familiar where somebody has signed in"
    )
    forget_minutes: int = Field(
        60, ge=1, le=10080, description="Minutes after the last wait, or wrong sign-in, until all are forgotten"
    )
