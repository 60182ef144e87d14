"""One linear history that goes up, down and up again on every database, and that says what the code says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect
from sqlmodel import Session, select

from backend.core.config import DatabaseSettings
from backend.core.db import sync_engine, sync_url
from backend.core.models import utc_now
from backend.features.users.models import User, UserSession
from backend.testing import ROOT, run_alembic, temporary_database


def tables(url: str) -> set[str]:
    engine = create_engine(sync_url(url))
    found = set(inspect(engine).get_table_names())
    engine.dispose()
    return found - {"alembic_version"}


def test_up_down_up_and_no_drift(empty_database_url: str) -> None:
    run_alembic(empty_database_url, lambda alembic: command.upgrade(alembic, "head"))
    assert {"users", "sessions"} <= tables(empty_database_url)
    run_alembic(empty_database_url, lambda alembic: command.downgrade(alembic, "base"))
    assert tables(empty_database_url) == set()
    run_alembic(empty_database_url, lambda alembic: command.upgrade(alembic, "head"))
    run_alembic(empty_database_url, command.check)


def test_each_step_can_be_taken_back(empty_database_url: str) -> None:
    run_alembic(empty_database_url, lambda alembic: command.upgrade(alembic, "head"))
    history = list(ScriptDirectory(str(ROOT / "backend/migrations")).walk_revisions())
    for _ in history:
        run_alembic(empty_database_url, lambda alembic: command.downgrade(alembic, "-1"))
        run_alembic(empty_database_url, lambda alembic: command.upgrade(alembic, "+1"))
        run_alembic(empty_database_url, lambda alembic: command.downgrade(alembic, "-1"))


@pytest.mark.slow
def test_of_two_processes_that_migrate_at_once_the_second_waits(database_name: str, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("""
import time
from pathlib import Path
from alembic import op
import sqlalchemy as sa
revision, down_revision = "slow", None
def upgrade():
    op.create_table("slow", sa.Column("id", sa.Integer(), primary_key=True))
    print("migrating", flush=True)
    while not Path(__file__).with_name("second").exists():
        time.sleep(0.05)
    time.sleep(3)
def downgrade():
    pass
""")
    script = """
import sys
from pathlib import Path
from alembic import command
from alembic.config import Config
import backend.main  # what takes long to load
folder, name = sys.argv[1:]
config = Config("alembic.ini")
config.set_main_option("version_locations", folder)
Path(folder, name).touch()
command.upgrade(config, "head")
"""
    with temporary_database(database_name) as url:

        def migrating(name: str) -> subprocess.Popen[str]:
            start = ["timeout", "60", sys.executable, "-c", script, str(tmp_path), name]
            return subprocess.Popen(
                start, cwd=ROOT, env=os.environ | {"DATABASE_URL": url}, stdout=subprocess.PIPE, text=True
            )

        with migrating("first") as first, first.stdout as said:  # type: ignore[union-attr]
            assert said.readline() == "migrating\n"
            with migrating("second") as second:
                assert second.communicate()[0] == ""  # it found nothing left to do
        assert (first.returncode, second.returncode) == (0, 0)
        assert tables(url) == {"slow"}


def test_the_history_is_linear() -> None:
    script = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))
    assert len(script.get_heads()) == len(script.get_bases()) == 1
    assert not [revision for revision in script.walk_revisions() if revision.is_merge_point or revision.is_branch_point]


def test_the_sql_can_be_printed_instead_of_run(capsys: pytest.CaptureFixture[str]) -> None:
    command.upgrade(Config(ROOT / "alembic.ini"), "head", sql=True)
    assert "CREATE TABLE users" in capsys.readouterr().out


def test_rebuilding_a_table_of_sqlite_keeps_the_rows_that_refer_to_it(tmp_path: Path) -> None:
    """What batch mode does: with foreign keys on, dropping the old table would delete or clear what refers to it."""
    engine = sync_engine(DatabaseSettings(url=f"sqlite:///{tmp_path}/batch.db"))
    run_alembic(str(engine.url), lambda alembic: command.upgrade(alembic, "head"))
    with Session(engine) as session:
        session.add(User(id=1, email="owner@example.com", password_hash="!"))
        session.flush()
        session.add(UserSession(user_id=1, sid="x", kind="token", expires_at=utc_now()))
        session.commit()
    revision = """
from alembic import op
import sqlalchemy as sa
revision, down_revision = "9999", "{head}"
def upgrade():
    with op.batch_alter_table("users") as batch:
        batch.alter_column("full_name", existing_type=sa.String(200), type_=sa.String(300))
def downgrade():
    pass
"""
    alembic = Config(ROOT / "alembic.ini")
    head = ScriptDirectory.from_config(alembic).get_current_head()
    (tmp_path / "9999.py").write_text(revision.replace("{head}", str(head)))

    def upgrade(config: Config) -> None:
        versions = ROOT / "backend/migrations/versions"
        config.set_main_option("version_locations", f"{versions}{os.pathsep}{tmp_path}")
        config.set_main_option("path_separator", "os")
        command.upgrade(config, "9999")

    run_alembic(str(engine.url), upgrade)
    with Session(engine) as session:
        assert session.exec(select(UserSession)).one().user_id == 1
    engine.dispose()
