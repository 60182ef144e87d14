"""`python -m backend …` as real processes: what the scripts and operators run."""

import os
import re
import shutil
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
    return run_in(ROOT, *arguments, **variables)


def run_in(tree: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | variables
    command = [sys.executable, "-m", "backend", *arguments]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=60, check=False)


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


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the code, for commands that write into it."""
    for name in ("backend", "admin", "frontend"):
        shutil.copytree(ROOT / name, tmp_path / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", tmp_path / "tree")
    (tmp_path / "tree/.venv/bin").mkdir(parents=True)
    (tmp_path / "tree/.venv/bin/ruff").symlink_to(Path(sys.executable).parent / "ruff")
    return tmp_path / "tree"


def test_an_older_version_leaves_a_newer_versions_tables_alone(url: str, tmp_path: Path) -> None:
    """As after a roll-back: the older image's migration runs again, and must not fail."""
    assert run("migrate", DATABASE_URL=url).returncode == 0
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    for command in ("migrate", "await-migrations"):
        result = run(command, DATABASE_URL=url)
        assert result.returncode == 0, result.stderr
        assert "9999" in result.stdout


def test_who_waits_for_migrations_goes_on_when_they_are_done(url: str) -> None:
    waiting = run("await-migrations", "--seconds", "1", DATABASE_URL=url)
    assert waiting.returncode == 1
    assert "none, still not" in waiting.stderr
    command = [sys.executable, "-m", "backend", "await-migrations"]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | {"DATABASE_URL": url}) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=4)
        assert run("migrate", DATABASE_URL=url).returncode == 0
        assert process.wait(timeout=30) == 0


def test_a_new_migration_keeps_the_rows_there_are(tree: Path, url: str, tmp_path: Path) -> None:
    """A column that must not be null is added below a row, then taken away again."""
    assert run_in(tree, "admin", DATABASE_URL=url).returncode != 0, "there are no tables yet"
    nothing = run_in(tree, "new-migration", "nothing", DATABASE_URL=url)
    assert "nothing to write" in nothing.stdout
    assert run_in(tree, "admin", DATABASE_URL=url).returncode == 0
    model = tree / "backend/features/users/models.py"
    before = model.read_text()
    anchor = "    is_active: bool = True\n"
    model.write_text(before.replace(anchor, f'{anchor}    colour: str = Field(default="blue", max_length=20)\n'))
    written = run_in(tree, "new-migration", "add colour/hue, un-used", DATABASE_URL=url)
    assert written.returncode == 0, written.stderr
    assert "→" in run_in(tree, "migrate", DATABASE_URL=url).stdout
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        assert connection.execute("SELECT email, colour FROM users").fetchone() == ("admin@example.com", "blue")
    assert run_in(tree, "migrate", "-1", DATABASE_URL=url).returncode == 0
    model.write_text(before)
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        assert connection.execute("SELECT email FROM users").fetchone() == ("admin@example.com",)


def test_a_written_migration_drops_what_refers_to_others_first(tree: Path, url: str, tmp_path: Path) -> None:
    assert run_in(tree, "migrate", DATABASE_URL=url).returncode == 0
    names = ["street", "city", "country", "planet"]
    with closing(sqlite3.connect(tmp_path / "app.db")) as connection:
        for name, larger in zip(names, [*names[1:], "street"], strict=True):
            key = f", {larger}_id INTEGER REFERENCES {larger}(id)" if name != "planet" else ""
            connection.execute(f"CREATE TABLE {name} (id INTEGER PRIMARY KEY{key})")
    written = run_in(tree, "new-migration", "drop places", DATABASE_URL=url, PYTHONHASHSEED="1")
    assert written.returncode == 0, written.stderr
    up, down = next((tree / "backend/migrations/versions").glob("*drop_places.py")).read_text().split("def downgrade")
    assert re.findall(r'drop_table\("(\w+)"\)', up) == names
    assert re.findall(r'create_table\(\s*"(\w+)"', down) == names[::-1]


MISTAKES = {
    "PORT": ("http", "SERVER__PORT: "),
    "ENVIRONMENT": ("prod", "ENVIRONMENT: "),
    "DATABASE_URL": ("oracle://x", "'oracle'"),
    "FEATURES_OFF": ("nonsense", "unknown features: nonsense"),
    "REDIS_URL": ("nonsense", "Redis URL"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_in_the_settings_is_said_in_one_line(name: str, url: str) -> None:
    value, complaint = MISTAKES[name]
    refused = run("serve", **{"DATABASE_URL": url, name: value})
    assert refused.returncode != 0
    assert complaint in refused.stderr
    assert "Traceback" not in refused.stderr


MAILING = {"API__PUBLIC_URL": "https://example.com", "MAIL__BACKEND": "smtp"}


def test_unsafe_production_is_refused_in_plain_words(url: str) -> None:
    refused = run("serve", ENVIRONMENT="production", DEBUG="1", DATABASE_URL=url, **MAILING)
    assert refused.returncode != 0
    assert refused.stderr.count("  - ") == 2
    assert "Traceback" not in refused.stderr


def test_help_explains_every_command() -> None:
    listed = run("--help").stdout
    commands = ("dev", "serve", "migrate", "await-migrations", "new-migration", "check-migrations", "admin", "seed")
    for command in (*commands, "openapi", "secrets"):
        assert re.search(rf"^ +{command}( \(\w+\))?\s+\w", listed, re.MULTILINE), command
