"""Settings: typed, nested, read from the environment and from one `.env` file, checked once at start.

Every setting is `SECTION__NAME` in the environment (`DATABASE__URL`). A feature keeps its own section beside its code,
as a subclass of `EnvSettings` with `env_prefix="SECTION__"`.
"""

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Literal, Self, cast

from dotenv import dotenv_values
from pydantic import BaseModel, BeforeValidator, Field, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    DotEnvSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

INSECURE_SECRET = "insecure-development-secret-change-me"  # noqa: S105  production refuses it by name
SECRET_MIN_LENGTH = 32  # bytes; RFC 7518 §3.2: an HS256 key is at least as long as the hash

# Names that hosting platforms set, and the setting each stands for.
PLATFORM_NAMES = {
    "database_url": "database__url",
    "redis_url": "redis__url",
    "secret_key": "security__secret_key",
    "port": "server__port",
    "allowed_origins": "cors__allowed_origins",
}


def split_commas(value: object) -> object:
    """`"a, b"` → `["a", "b"]`; anything but a string passes through."""
    if isinstance(value, str):
        return [part for part in (part.strip() for part in value.split(",")) if part]
    return value


CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)]


def _with_platform_names(variables: Mapping[str, str | None]) -> Mapping[str, str | None]:
    found = {ours: variables[theirs] for theirs, ours in PLATFORM_NAMES.items() if variables.get(theirs)}
    return {**found, **variables}


class _Environment(EnvSettingsSource):
    def _load_env_vars(self) -> Mapping[str, str | None]:
        return _with_platform_names(super()._load_env_vars())


class _EnvFile(DotEnvSettingsSource):
    def _load_env_vars(self) -> Mapping[str, str | None]:
        return _with_platform_names(super()._load_env_vars())


class EnvSettings(BaseSettings):
    """Base of every settings class: the environment first, then the file that `ENV_FILE` names (`.env` when unset)."""

    model_config = SettingsConfigDict(env_nested_delimiter="__", extra="ignore", env_ignore_empty=True, frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        env_file = os.environ.get("ENV_FILE", ".env")
        return init_settings, _Environment(settings_cls), _EnvFile(settings_cls, env_file=env_file)

    @classmethod
    def current(cls) -> Self:
        """This process's instance, read from the environment at first use."""
        if cls not in _current:
            _current[cls] = cls()
        return cast(Self, _current[cls])

    @classmethod
    def variables(cls) -> dict[str, FieldInfo]:
        """Every setting by the name of its variable: `DATABASE__POOL_SIZE`."""
        prefix = cls.model_config.get("env_prefix", "")
        found: dict[str, FieldInfo] = {}
        for name, field in cls.model_fields.items():
            kind = field.annotation
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= {f"{prefix}{name}__{inner}".upper(): one for inner, one in kind.model_fields.items()}
            else:
                found[f"{prefix}{name}".upper()] = field
        return found

    def offences(self, settings: "Settings") -> list[str]:
        """What makes these values unfit for production, a sentence each; none when fit."""
        return []


_current: dict[type[EnvSettings], EnvSettings] = {}


def misspelled(classes: Iterable[type[EnvSettings]]) -> dict[str, str]:
    """Variables that name a section of ours but no setting → the one that was likely meant, or nothing."""
    known = {name for one in classes for name in one.variables()}
    sections = tuple(name.split("__")[0] + "__" for name in known if "__" in name)
    given = {name.upper() for name in (*os.environ, *dotenv_values(os.environ.get("ENV_FILE", ".env")))}
    unknown = sorted(name for name in given - known if name.startswith(sections))
    return {name: next(iter(get_close_matches(name, known, 1)), "") for name in unknown}


def forget_current() -> None:
    """Make the next `current()` read the environment again: for tests that change it."""
    _current.clear()


class ApiSettings(BaseModel):
    title: str = Field("Mainstay", description="Name shown in the API documentation, the console and the dashboard")
    root_path: str = Field("", description="Path prefix that a proxy strips before requests reach the app")


class DatabaseSettings(BaseModel):
    url: str = Field("sqlite:///data/mainstay.db", description="SQLite, PostgreSQL or MySQL/MariaDB URL")
    pool_size: int = Field(5, ge=1, description="Connections kept open per process")
    max_overflow: int = Field(10, ge=0, description="Further connections opened under load, per process")
    pool_timeout: float = Field(5.0, gt=0, description="Seconds to wait for a connection before answering 503")
    connect_timeout: float = Field(5.0, gt=0, description="Seconds to wait for a new connection")
    command_timeout: float = Field(30.0, gt=0, description="Seconds to wait for one answer of PostgreSQL")
    pool_recycle: int = Field(1800, ge=-1, description="Seconds after which a connection is replaced; -1 never")
    pre_ping: bool = Field(True, description="Test a connection before use, so that a database restart costs no error")
    busy_timeout: float = Field(5.0, ge=0, description="Seconds that SQLite waits for another writer")
    echo: bool = Field(False, description="Log every SQL statement")


class RedisSettings(BaseModel):
    url: str = Field("", description="Redis URL; empty keeps everything in this process")
    timeout: float = Field(0.25, gt=0, description="Seconds before a Redis call counts as failed")
    max_connections: int = Field(50, ge=1, description="Connections per process")


class SecuritySettings(BaseModel):
    secret_key: SecretStr = Field(
        SecretStr(INSECURE_SECRET), description="Signs tokens: 32 random bytes or more; ./scripts/dev writes one"
    )


class ServerSettings(BaseModel):
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on")
    workers: int = Field(1, ge=1, description="Server processes")
    forwarded_allow_ips: str = Field("127.0.0.1", description="Proxies whose X-Forwarded-* headers are believed")


class LogSettings(BaseModel):
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level to write")
    format: Literal["auto", "console", "json"] = Field("auto", description="auto: console in development, else JSON")


class Settings(EnvSettings):
    """The kernel's settings. Sections nest with two underscores: `DATABASE__POOL_SIZE=20`."""

    environment: Literal["development", "staging", "production"] = Field(
        "development", description="production refuses unsafe values and says which"
    )
    debug: bool = Field(False, description="Show a traceback in the browser when something fails; never in production")
    features_off: CommaList = Field((), description="Features to switch off, separated by commas")
    api: ApiSettings = ApiSettings()
    database: DatabaseSettings = DatabaseSettings()
    redis: RedisSettings = RedisSettings()
    security: SecuritySettings = SecuritySettings()
    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()

    def offences(self, settings: "Settings") -> list[str]:
        secret = self.security.secret_key.get_secret_value()
        several = f"SERVER__WORKERS is {self.server.workers}"
        checks = {
            "SECURITY__SECRET_KEY is the published default: anyone could sign tokens": secret == INSECURE_SECRET,
            f"SECURITY__SECRET_KEY is shorter than {SECRET_MIN_LENGTH} bytes": len(secret.encode()) < SECRET_MIN_LENGTH,
            "DEBUG is on: error pages would show source code": self.debug,
            f"DATABASE__URL is SQLite while {several}: SQLite takes one writing process": (
                self.database.url.startswith("sqlite") and self.server.workers > 1
            ),
            f"REDIS__URL is empty while {several}: limits and caches in one process would not see the others": (
                not self.redis.url and self.server.workers > 1
            ),
        }
        return [sentence for sentence, unsafe in checks.items() if unsafe]


class BadSetting(ValueError):
    """A setting has a value that cannot be used; the message says which, for the person who set it."""


class UnsafeSettings(RuntimeError):
    """Production was asked for with values that only development may have; `offences` lists them all."""

    def __init__(self, offences: list[str]) -> None:
        self.offences = offences
        super().__init__("Unsafe settings for production:\n" + "\n".join(f"  - {line}" for line in offences))
