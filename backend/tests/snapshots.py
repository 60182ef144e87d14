"""Files that say what is promised. A test that differs from its file fails; UPDATE_SNAPSHOTS=1 writes it anew.

Each lies in the tests of the feature it is about, so that it goes when the feature goes.
"""

import os
from pathlib import Path

from backend.testing import ROOT


def folder_of(module: str) -> Path:
    """The tests folder of the part that a module belongs to."""
    parts = module.split(".")
    if parts[:2] == ["backend", "features"]:
        return ROOT / "backend/features" / parts[2] / "tests"
    return ROOT / (parts[0] if parts[0] in ("admin", "frontend") else "backend") / "tests"


def check(path: Path, content: str) -> None:
    if os.environ.get("UPDATE_SNAPSHOTS"):
        path.write_text(content)
    assert path.exists(), f"{path} is missing: look at the change, then UPDATE_SNAPSHOTS=1 writes it"
    assert path.read_text() == content, f"{path} differs: if that is meant, UPDATE_SNAPSHOTS=1 writes it anew"
