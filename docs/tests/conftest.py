"""The site, built once for all tests of the docs."""

import subprocess
import sys
from pathlib import Path

import pytest

from backend.testing import ROOT


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without --strict: prose may still link to a feature that was just taken out."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "--quiet", "build", "--site-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120)
    return folder
