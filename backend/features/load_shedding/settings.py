"""From when on it is too much. The defaults are beyond what a process meets that still answers in decent time."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from backend.core.config import CommaList, EnvSettings


class LoadSheddingSettings(EnvSettings):
    model_config = SettingsConfigDict(env_prefix="LOAD_SHEDDING__")

    in_flight: int = Field(500, ge=1, description="Requests answered at once per process; more are refused with 503")
    lag_seconds: float = Field(
        0.5, gt=0, description="Lag of the event loop from which on some requests are refused; at twice that, most"
    )
    exempt_paths: CommaList = Field(
        ("/live", "/ready", "/health", "/metrics", "/admin"),
        description="Paths, with all below them, that are never refused: for those who look after the app",
    )
