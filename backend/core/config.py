"""Settings: typed, nested, read from the environment and from one `.env` file, checked once at start.

Every setting is `SECTION__NAME` in the environment (`DATABASE__URL`). A feature keeps its own section beside its code,
as a subclass of `EnvSettings` with `env_prefix="SECTION__"`.
"""

import os
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self, cast

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
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


class BadSetting(ValueError):
    """A setting has a value that cannot be used; the message says which, for the person who set it."""


def split_commas(value: object) -> object:
    """`"a, b"` → `["a", "b"]`; anything but a string passes through."""
    if isinstance(value, str):
        return [part for part in (part.strip() for part in value.split(",")) if part]
    return value


CommaList = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_commas)]
SecretList = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(split_commas)]


def _with_platform_names(variables: Mapping[str, str | None]) -> Mapping[str, str | None]:
    found = {ours: variables[theirs] for theirs, ours in PLATFORM_NAMES.items() if variables.get(theirs)}
    return {**found, **variables}


class _Environment(EnvSettingsSource):
    def _load_env_vars(self) -> Mapping[str, str | None]:
        return _with_platform_names(super()._load_env_vars())


class _EnvFile(DotEnvSettingsSource):
    def _load_env_vars(self) -> Mapping[str, str | None]:
        return _with_platform_names(super()._load_env_vars())


def _secrets_folder() -> Path | None:
    """The folder of secrets, as Docker and Kubernetes mount them: a file per setting, named like its variable."""
    if not (named := os.environ.get("SECRETS_DIR")):
        return None
    if not (folder := Path(named)).is_dir():
        raise BadSetting(f"SECRETS_DIR names {named}, which is no folder")
    return folder


class _Secrets(EnvSettingsSource):
    def _load_env_vars(self) -> Mapping[str, str | None]:
        folder = _secrets_folder()
        if folder is None:
            return {}
        # Only files named like settings of ours are opened: others may be there for other programs alone.
        ours = cast(type[EnvSettings], self.settings_cls).variables()
        names = [*PLATFORM_NAMES, *(name.lower() for name in ours)]
        return _with_platform_names({name: _content(folder / name) for name in names if (folder / name).is_file()})


def _content(secret: Path) -> str:
    try:
        return secret.read_text().strip()
    except (OSError, UnicodeDecodeError) as unreadable:
        raise BadSetting(f"The secret {secret} cannot be read: {unreadable}") from unreadable


class EnvSettings(BaseSettings):
    """Base of every settings class: first the environment, then the folder of files that `SECRETS_DIR` names, then the
    file that `ENV_FILE` names (`.env` when unset).
    """

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
        sources = _Environment(settings_cls), _Secrets(settings_cls), _EnvFile(settings_cls, env_file=env_file)
        return init_settings, *sources

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
    files = folder.iterdir() if (folder := _secrets_folder()) else ()
    sources = (os.environ, dotenv_values(os.environ.get("ENV_FILE", ".env")), (file.name for file in files))
    given = {name.upper() for source in sources for name in source}
    unknown = sorted(name for name in given - known if name.startswith(sections))
    return {name: next(iter(get_close_matches(name, known, 1)), "") for name in unknown}


def forget_current() -> None:
    """Make the next `current()` read the environment again: for tests that change it."""
    _current.clear()


class ApiSettings(BaseModel):
    title: str = Field("Mainstay", description="Name shown in the API documentation, the console and the dashboard")
    root_path: str = Field("", description="Path prefix that a proxy strips before requests reach the app")
    public_url: str = Field(
        "",
        pattern=r"^(https?://[^\s/?#]+[^\s?#]*[^\s?#/]|)$",
        description="Where people reach the app, prefix included, for links in mails: https://app.example.com",
    )


class DatabaseSettings(BaseModel):
    url: str = Field("sqlite:///data/mainstay.db", description="SQLite, PostgreSQL or MySQL/MariaDB URL")
    pool_size: int = Field(15, ge=1, description="Most connections kept open per process")
    max_overflow: int = Field(0, ge=0, description="Further connections under load; DATABASE__POOL_SIZE are kept")
    pool_timeout: float = Field(5.0, gt=0, description="Seconds to wait for a connection before answering 503")
    connect_timeout: float = Field(5.0, gt=0, description="Seconds to wait for a new connection")
    command_timeout: float = Field(30.0, gt=0, description="Seconds to wait for one answer of PostgreSQL")
    pool_recycle: int = Field(1800, ge=-1, description="Seconds after which a connection is replaced; -1 never")
    pre_ping: bool = Field(True, description="Test a connection before use, so that a database restart costs no error")
    busy_timeout: float = Field(5.0, ge=0, description="Seconds that SQLite waits for another writer")
    echo: bool = Field(False, description="Log every SQL statement")
    replica_urls: CommaList = Field((), description="Read replicas of that database, separated by commas")
    replica_max_lag_seconds: float = Field(5.0, gt=0, description="A replica further behind than this is not read from")
    replica_sticky_seconds: float = Field(
        10.0, gt=0, description="Seconds after a write in which its author reads from the primary; more than the lag"
    )
    replica_timeout: float = Field(0.5, gt=0, description="Seconds to wait for a replica before asking the primary")


class RedisSettings(BaseModel):
    url: str = Field("", description="Redis URL; empty keeps everything in this process")
    timeout: float = Field(0.25, gt=0, description="Seconds before a Redis call counts as failed")
    max_connections: int = Field(50, ge=1, description="Connections per process")
    prefix: str = Field(
        "mainstay", pattern=r"^[\w:.-]+$", description="What our keys begin with; apps that share a Redis have one each"
    )


class CacheSettings(BaseModel):
    enabled: bool = Field(True, description="Whether answers are cached at all")
    max_bytes: int = Field(64 * 2**20, ge=0, description="Memory for cached answers, per process")
    max_entry_bytes: int = Field(2**20, ge=0, description="Largest answer that is cached")
    local_seconds: float = Field(
        30, gt=0, description="Seconds for which a process goes on with what it has, before it looks into Redis again"
    )
    away_seconds: float = Field(2, gt=0, description="The same while Redis is away: how outdated an answer may be then")
    flight_seconds: float = Field(
        2, gt=0, description="Wait for another request, or process, that computes the same answer; then one more does"
    )


class OutsideSettings(BaseModel):
    connect_timeout: float = Field(2, gt=0, description="Seconds to wait for a connection to another service")
    timeout: float = Field(4, gt=0, description="Seconds for one try, to the last byte of the answer")
    total_timeout: float = Field(10, gt=0, description="Seconds for all tries and the pauses between them")
    tries: int = Field(3, ge=1, description="Tries in all, of requests that may be repeated")
    per_host: int = Field(20, ge=1, description="Requests to one host at once, per process; others wait")
    response_bytes: int = Field(10 * 1024 * 1024, ge=1, description="Largest answer")
    breaker_failures: int = Field(5, ge=1, description="Failures in a row after which a host is left alone")
    breaker_seconds: float = Field(10, gt=0, description="Seconds for which it is; then one request tries")
    proxy: SecretStr = Field(SecretStr(""), description="URL of the proxy to use for them; HTTPS_PROXY is not read")


class SecuritySettings(BaseModel):
    secret_key: SecretStr = Field(
        SecretStr(INSECURE_SECRET), description="Signs tokens: 32 random bytes or more; ./scripts/dev writes one"
    )
    previous_secret_keys: SecretList = Field(
        (), description="Earlier secret keys, separated by commas: what they signed is accepted until it expires"
    )
    principal_cache_seconds: float = Field(
        10,
        ge=0,
        le=300,
        description="Longest time for which another process may go on with what it knew of a caller; 0 asks every time",
    )

    def keys_for(self, purpose: str) -> tuple[bytes, ...]:
        """Keys of 32 bytes for one purpose, derived from the secret keys by HKDF (RFC 5869); the first is in use.

        No key has two purposes, so that what one part signs or encrypts means nothing to another.
        """
        ring = (self.secret_key, *self.previous_secret_keys)
        return tuple(_derived(one.get_secret_value(), purpose) for one in ring)


@lru_cache(maxsize=64)
def _derived(secret: str, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(secret.encode())


class ServerSettings(BaseModel):
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=1, le=65535, description="Port to listen on")
    workers: int = Field(1, ge=1, description="Server processes")
    drain_seconds: float = Field(
        0, ge=0, description="Seconds between SIGTERM and the stop, in which proxies learn to send requests elsewhere"
    )
    forwarded_allow_ips: str = Field("127.0.0.1", description="Proxies whose X-Forwarded-* headers are believed")


LogLevel = Literal["debug", "info", "warning", "error"]


class LogSettings(BaseModel):
    level: LogLevel = Field("info", description="Least severe level to write")
    format: Literal["auto", "console", "json"] = Field("auto", description="auto: console in development, else JSON")


class MailSettings(BaseModel):
    backend: Literal["console", "smtp"] = Field("console", description="console: mails go to the log only")
    host: str = Field("localhost", description="Server that takes our mail")
    port: int = Field(587, ge=1, le=65535, description="Its port: 587 for starttls, 465 for tls")
    tls: Literal["none", "starttls", "tls"] = Field("starttls", description="tls: from the first byte on")
    user: str = Field("", description="Name to sign in with; empty: do not sign in")
    password: SecretStr = Field(SecretStr(""), description="Password to sign in with")
    timeout: float = Field(10, gt=0, description="Seconds to wait for an answer of the server")
    from_address: str = Field(
        "mainstay@localhost", pattern=r"^[^@\s]+@[^@\s]+$", description="Sender; the server must accept it"
    )
    from_name: str = Field("", description="Sender's name; empty: API__TITLE")
    queue_size: int = Field(1000, ge=1, description="Mails that wait, per process; more are lost and logged")
    retry_seconds: float = Field(300, gt=0, description="Seconds for which a mail is tried again when sending fails")
    stop_seconds: float = Field(5, ge=0, description="Seconds at the stop in which mails that wait are still sent")


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
    cache: CacheSettings = CacheSettings()
    outside: OutsideSettings = OutsideSettings()
    security: SecuritySettings = SecuritySettings()
    server: ServerSettings = ServerSettings()
    log: LogSettings = LogSettings()
    mail: MailSettings = MailSettings()

    def offences(self, settings: "Settings") -> list[str]:
        secret = self.security.secret_key.get_secret_value()
        several = f"SERVER__WORKERS is {self.server.workers}"
        checks = {
            "SECURITY__SECRET_KEY is the published default: anyone could sign tokens": secret == INSECURE_SECRET,
            f"SECURITY__PREVIOUS_SECRET_KEYS has one shorter than {SECRET_MIN_LENGTH} bytes": any(
                len(one.get_secret_value().encode()) < SECRET_MIN_LENGTH for one in self.security.previous_secret_keys
            ),
            f"SECURITY__SECRET_KEY is shorter than {SECRET_MIN_LENGTH} bytes": len(secret.encode()) < SECRET_MIN_LENGTH,
            "DEBUG is on: error pages would show source code": self.debug,
            f"DATABASE__URL is SQLite while {several}: SQLite takes one writing process": (
                self.database.url.startswith("sqlite") and self.server.workers > 1
            ),
            f"REDIS__URL is empty while {several}: limits and caches in one process would not see the others": (
                not self.redis.url and self.server.workers > 1
            ),
            "MAIL__TLS is none while MAIL__PASSWORD is set: it would cross the network in clear": (
                self.mail.tls == "none" and bool(self.mail.password.get_secret_value())
            ),
        }
        return [sentence for sentence, unsafe in checks.items() if unsafe]


class UnsafeSettings(RuntimeError):
    """Production was asked for with values that only development may have; `offences` lists them all."""

    def __init__(self, offences: list[str]) -> None:
        self.offences = offences
        super().__init__("Unsafe settings for production:\n" + "\n".join(f"  - {line}" for line in offences))
