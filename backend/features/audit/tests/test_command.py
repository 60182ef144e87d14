"""What operators do at the command line is in the log as well."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlmodel import col, select

from backend.core.config import DatabaseSettings
from backend.core.db import sync_session
from backend.features.audit.models import AuditEntry
from backend.testing import ROOT


@pytest.mark.slow
def test_an_administrator_made_by_the_command_is_in_the_log(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/command.db"
    for command in ("migrate", "admin", "admin"):  # the second time it gives a new password
        environment = os.environ | {"DATABASE_URL": url}
        subprocess.run([sys.executable, "-m", "backend", command], cwd=ROOT, env=environment, check=True, timeout=60)
    with sync_session(DatabaseSettings(url=url)) as session:
        log = session.exec(select(AuditEntry).order_by(col(AuditEntry.id))).all()
        assert {one.via for one in log} == {"system"}
        assert [one.action for one in log] == [
            "users.created",
            "account.created",
            "users.updated",
            "password.changed",
        ]
