"""`python -m backend …` as real processes: what the scripts and operators run."""

import os
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from backend.testing import ROOT, free_port, wait_until_ready

pytestmark = pytest.mark.slow


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | variables
    command = [sys.executable, "-m", "backend", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/app.db"


def password_in(output: str) -> str:
    found = re.search(r"Password: (\S+)", output)
    assert found, output
    return found[1]


def test_migrate_admin_seed_serve(url: str, tmp_path: Path) -> None:
    assert run("migrate", DATABASE_URL=url).returncode == 0
    assert run("check-migrations", DATABASE_URL=url).returncode == 0
    first = run("admin", "boss@example.com", DATABASE_URL=url)
    assert "boss@example.com" in first.stdout
    assert run("admin", "boss@example.com", "--first", DATABASE_URL=url).stdout == ""
    second = run("admin", "BOSS@example.com", DATABASE_URL=url)
    assert password_in(first.stdout) != password_in(second.stdout)
    seeded = run("seed", "--count", "30", DATABASE_URL=url)
    assert "30/30" in seeded.stderr
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        assert connection.execute("SELECT count(*) FROM users").fetchone() == (31,)

    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "backend", "serve"]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"DATABASE_URL": url, "PORT": str(port)}) as server:
        wait_until_ready(base, server)
        form = {"username": "boss@example.com", "password": password_in(second.stdout)}
        assert httpx2.post(f"{base}/api/v1/auth/token", data=form).status_code == 200
        form["password"] = password_in(first.stdout)
        assert httpx2.post(f"{base}/api/v1/auth/token", data=form).status_code == 401
        server.terminate()
        assert server.wait(timeout=30) in (0, -15)
    assert run("migrate", "-1", DATABASE_URL=url).returncode == 0
    assert run("check-migrations", DATABASE_URL=url).returncode != 0


def test_unsafe_production_is_refused_in_plain_words(url: str) -> None:
    refused = run("serve", ENVIRONMENT="production", DEBUG="1", DATABASE_URL=url)
    assert refused.returncode != 0
    assert refused.stderr.count("  - ") == 2
    assert "Traceback" not in refused.stderr


def test_a_feature_that_is_not_there_cannot_be_switched_off(url: str) -> None:
    refused = run("seed", FEATURES_OFF="nonsense", DATABASE_URL=url)
    assert "unknown features: nonsense" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_help_explains_every_command() -> None:
    listed = run("--help").stdout
    for command in ("dev", "serve", "migrate", "new-migration", "check-migrations", "admin", "seed"):
        assert re.search(rf"^ +{command}\s+\w", listed, re.MULTILINE), command
