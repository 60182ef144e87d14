"""One linear history that goes up, down and up again on every database, and that says what the code says."""

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect

from backend.core.db import sync_url
from backend.testing import ROOT, run_alembic


def tables(url: str) -> set[str]:
    engine = create_engine(sync_url(url))
    found = set(inspect(engine).get_table_names())
    engine.dispose()
    return found - {"alembic_version"}


def test_up_down_up_and_no_drift(empty_database_url: str) -> None:
    run_alembic(empty_database_url, lambda alembic: command.upgrade(alembic, "head"))
    assert {"users", "console_sessions"} <= tables(empty_database_url)
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


def test_the_history_is_linear() -> None:
    script = ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))
    assert len(script.get_heads()) == len(script.get_bases()) == 1
    assert not [revision for revision in script.walk_revisions() if revision.is_merge_point or revision.is_branch_point]


def test_the_sql_can_be_printed_instead_of_run(capsys: pytest.CaptureFixture[str]) -> None:
    command.upgrade(Config(ROOT / "alembic.ini"), "head", sql=True)
    assert "CREATE TABLE users" in capsys.readouterr().out
