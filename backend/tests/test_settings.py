"""Settings: where they come from, that production refuses unsafe ones, and that `.env.example` lists them all."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from pydantic import SecretStr, ValidationError

from backend.core import feature
from backend.core.config import PLATFORM_NAMES, BadSetting, Settings, UnsafeSettings, misspelled
from backend.features import FEATURES
from backend.testing import ROOT

EXAMPLE = re.compile(r"^# (.+)\n#?([A-Z_]+)=(.*)$", re.MULTILINE)
Environment = Callable[..., None]
SAFE = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": "s" * 32,
    "TRUSTED_HOSTS__ALLOWED": "example.com",
    "API__PUBLIC_URL": "https://example.com",
    "MAIL__BACKEND": "smtp",
}


def test_nested_and_platform_names_reach_the_same_setting(environment: Environment) -> None:
    environment(DATABASE_URL="sqlite:///platform.db", PORT="9000", SECRET_KEY="k" * 32, REDIS_URL="redis://r")
    settings = Settings()
    assert settings.database.url == "sqlite:///platform.db"
    assert settings.server.port == 9000
    assert settings.security.secret_key.get_secret_value() == "k" * 32
    assert settings.redis.url == "redis://r"
    environment(DATABASE__URL="sqlite:///nested.db", DATABASE__POOL_SIZE="20")
    assert (Settings().database.url, Settings().database.pool_size) == ("sqlite:///nested.db", 20)


def test_the_environment_beats_the_file_whichever_name_each_uses(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("DATABASE__URL=sqlite:///file.db\nSERVER__PORT=1234\n")
    environment(ENV_FILE=str(tmp_path / "env"))
    assert Settings().database.url == "sqlite:///file.db"
    environment(DATABASE_URL="sqlite:///environment.db")
    assert (Settings().database.url, Settings().server.port) == ("sqlite:///environment.db", 1234)


def test_a_folder_of_secrets_comes_between_the_environment_and_the_file(
    environment: Environment, tmp_path: Path
) -> None:
    (tmp_path / "env").write_text("DATABASE__URL=sqlite:///file.db\nREDIS__URL=redis://file\nSERVER__PORT=1234\n")
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "security__secret_key").write_text("k" * 32 + "\n")
    (secrets / "database_url").write_text("sqlite:///secret.db")
    (secrets / "redis__url").write_text("redis://secret")
    (secrets / "database__urll").write_text("a slip of the pen")
    (secrets / "tls.key").write_text("for another program")
    (secrets / "..data").mkdir()  # as Kubernetes lays it out
    environment(ENV_FILE=str(tmp_path / "env"), SECRETS_DIR=str(secrets), REDIS__URL="redis://environment")
    settings = Settings()
    assert settings.security.secret_key.get_secret_value() == "k" * 32
    assert settings.database.url == "sqlite:///secret.db"
    assert settings.redis.url == "redis://environment"
    assert settings.server.port == 1234
    assert misspelled((Settings,)) == {"DATABASE__URLL": "DATABASE__URL"}


def test_secrets_that_are_not_there_or_not_readable_are_named(environment: Environment, tmp_path: Path) -> None:
    environment(SECRETS_DIR=str(tmp_path / "nowhere"))
    with pytest.raises(BadSetting, match="nowhere"):
        Settings()
    (tmp_path / "database__url").write_bytes(b"\xff")
    environment(SECRETS_DIR=str(tmp_path))
    with pytest.raises(BadSetting, match="database__url"):
        Settings()


def test_an_empty_variable_is_no_variable(environment: Environment) -> None:
    environment(DATABASE_URL="", DEBUG="")
    assert Settings().database.url == "sqlite:///data/mainstay.db"


@pytest.mark.parametrize(("name", "value"), [("PORT", "http"), ("ENVIRONMENT", "prod"), ("DATABASE__POOL_SIZE", "0")])
def test_a_bad_value_is_named(environment: Environment, name: str, value: str) -> None:
    environment(**{name: value})
    with pytest.raises(ValidationError, match=name.rsplit("__", maxsplit=1)[-1].lower()):
        Settings()


def test_secrets_do_not_show_when_settings_are_printed(environment: Environment) -> None:
    environment(SECRET_KEY="do-not-show-me-to-anybody-please!")
    assert "do-not-show" not in repr(Settings()) + Settings().model_dump_json()


def test_no_key_has_two_purposes_and_none_is_the_secret_key_itself(environment: Environment) -> None:
    environment(SECRET_KEY="k" * 32, SECURITY__PREVIOUS_SECRET_KEYS="p" * 32)
    security = Settings().security
    keys = {*security.keys_for("one"), *security.keys_for("two"), b"k" * 32, b"p" * 32}
    assert [len(key) for key in keys] == [32] * 6
    assert security.keys_for("one") == security.keys_for("one")


def test_production_starts_with_safe_values(make_app: Callable[..., FastAPI]) -> None:
    assert make_app(**SAFE)


@pytest.mark.parametrize(
    ("change", "offence"),
    [
        ({"SECRET_KEY": ""}, "published default"),
        ({"SECRET_KEY": "short"}, "shorter than 32"),
        ({"DEBUG": "1"}, "DEBUG"),
        ({"TRUSTED_HOSTS__ALLOWED": "*"}, "TRUSTED_HOSTS__ALLOWED"),
        ({"CORS__ALLOWED_ORIGINS": "*", "CORS__ALLOW_CREDENTIALS": "1"}, "CORS__ALLOWED_ORIGINS"),
        ({"MAIL__TLS": "none", "MAIL__PASSWORD": "secret"}, "MAIL__TLS"),
        ({"SERVER__WORKERS": "2", "REDIS_URL": "redis://r"}, "SQLite"),
        ({"SERVER__WORKERS": "2", "DATABASE_URL": "postgresql://h/d"}, "REDIS__URL"),
    ],
    ids=str,
)
def test_production_refuses_each_unsafe_value(
    make_app: Callable[..., FastAPI], change: dict[str, str], offence: str
) -> None:
    section = next(iter(change)).split("__")[0].lower()
    if section in ("cors", "trusted_hosts") and section not in FEATURES:
        pytest.skip(f"the {section} feature is not in this tree")
    with pytest.raises(UnsafeSettings, match=offence) as refusal:
        make_app(**SAFE | change)
    assert len(refusal.value.offences) == 1


def test_all_offences_are_listed_at_once(make_app: Callable[..., FastAPI]) -> None:
    with pytest.raises(UnsafeSettings) as refusal:
        make_app(**SAFE | {"SECRET_KEY": "", "DEBUG": "1", "SERVER__WORKERS": "2"})
    assert len(refusal.value.offences) == 4
    assert all(offence in str(refusal.value) for offence in refusal.value.offences)


def test_staging_says_what_production_would_refuse(
    make_app: Callable[..., FastAPI], capsys: pytest.CaptureFixture[str]
) -> None:
    make_app(ENVIRONMENT="staging", DEBUG="1")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert "DEBUG" in " ".join(line["offence"] for line in lines if line["event"] == "unsafe_setting")


def as_text(default: object) -> str:
    """A default as one would write it in the file."""
    if isinstance(default, SecretStr):
        return default.get_secret_value()
    return ",".join(default) if isinstance(default, tuple) else str(default).lower()


def all_settings() -> dict[str, tuple[str, str]]:
    """Variable → (description, default) of every setting, the kernel's and the features'."""
    classes = feature.load("backend.features", FEATURES).settings
    fields = {name: field for one in classes for name, field in one.variables().items()}
    return {name: (field.description or "", as_text(field.default)) for name, field in fields.items()}


def test_the_example_file_lists_every_setting_with_a_reason() -> None:
    listed = {
        name: (reason, default.lower())
        for reason, name, default in EXAMPLE.findall((ROOT / ".env.example").read_text())
    }
    settings = all_settings()
    assert {name: listed.get(name) for name in settings} == settings
    sections = {name.split("__")[0] for name in settings}  # those of a removed feature may stay in the file
    assert not [name for name in listed if name.split("__")[0] in sections and name not in settings]


def test_the_example_file_names_the_platforms_names() -> None:
    text = (ROOT / ".env.example").read_text()
    assert all(name.upper() in text for name in PLATFORM_NAMES)


def test_a_misspelled_setting_is_noticed(environment: Environment, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("REDIS__URI=redis://r\nUNRELATED__NAME=1\n")
    environment(ENV_FILE=str(tmp_path / "env"), DATABASE__POOLSIZE="20", DATABASE__POOL_SIZE="20", PORT="1")
    assert misspelled([Settings]) == {"DATABASE__POOLSIZE": "DATABASE__POOL_SIZE", "REDIS__URI": "REDIS__URL"}
