"""The removal drill: a feature leaves with its folder and its one line, and everything that remains is green.

A feature with tables leaves a database behind in which they still are; `./scripts/migrate new` writes the migration
that drops them, as a person would, and the tests of the migrations then hold it to account.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue

from backend.core import feature
from backend.features import FEATURES

ROOT = Path(__file__).resolve().parent.parent
SPINE = frozenset({"users"})
PYTEST = ("-q", "--databases", "sqlite", "-m", "not browser and not slow")


def copy_tree(target: Path) -> None:
    """What git knows or would add; the installed packages are shared."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    (target / ".venv").symlink_to(ROOT / ".venv")


def run(tree: Path, *arguments: str, database: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tree), "ENV_FILE": "", "DATABASE_URL": f"sqlite:///{database}"}
    command = [".venv/bin/python", "-m", *arguments]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=900, check=False)


def once_more(tree: Path, step: tuple[str, ...], database: Path) -> str:
    """What fails again, alone: two suites at once keep servers waiting, and what only that broke is not broken."""
    if step[0] == "pytest":
        step = (*step, "--last-failed", "--last-failed-no-failures", "none")
    result = run(tree, *step, database=database)
    return result.stdout + result.stderr if result.returncode else ""


def take_out(tree: Path, name: str) -> None:
    shutil.rmtree(tree / "backend/features" / name)
    registry = tree / "backend/features/__init__.py"
    before = registry.read_text()
    after, removed = re.subn(rf'^ +"{name}",.*\n', "", before, flags=re.MULTILINE)
    if removed != 1:
        raise SystemExit(f"{name} has {removed} lines in the registry")
    registry.write_text(after)


def drill(name: str, caches: Queue[Path]) -> str | None:
    """None when all is green without `name`, else what was printed."""
    mypy_cache = caches.get()
    try:
        return _drill(name, mypy_cache)
    finally:
        caches.put(mypy_cache)


def _drill(name: str, mypy_cache: Path) -> str | None:
    has_tables = "table=True" in "".join(path.read_text() for path in (ROOT / "backend/features" / name).rglob("*.py"))
    with tempfile.TemporaryDirectory(prefix=f"without-{name}-") as folder:
        tree, database = Path(folder) / "tree", Path(folder) / "old.db"
        tree.mkdir()
        copy_tree(tree)
        take_out(tree, name)
        if has_tables:
            written = run(tree, "backend", "new-migration", f"drop {name}", database=database)
            if written.returncode:
                return written.stdout + written.stderr
        steps = [("pytest", *PYTEST), ("mypy", "--cache-dir", str(mypy_cache))]
        if has_tables:
            steps.append(("pytest", "-q", "backend/tests/test_migrations.py", "--databases", "postgresql"))
        for step in steps:
            result = run(tree, *step, database=database)
            if not result.returncode:
                continue
            if again := once_more(tree, step, database):
                return result.stdout + result.stderr + again
            print(f"without {name}: passed at the second try, after\n{result.stdout[-2000:]}", flush=True)
    return None


def main() -> None:
    names = sys.argv[1:] or [name for name in FEATURES if name not in SPINE]
    needed = {need for one in feature.load("backend.features", FEATURES).features for need in one.needs}
    if kept := (SPINE | needed) & set(names):
        raise SystemExit(f"Other features need {', '.join(sorted(kept))}: take those out first")
    failed = []
    caches: Queue[Path] = Queue()
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="mypy-") as folder, ThreadPoolExecutor(cores) as pool:
        for number in range(cores):  # two that share a cache would undo each other's work
            cache = Path(folder) / str(number)
            if (ROOT / ".mypy_cache").exists():
                shutil.copytree(ROOT / ".mypy_cache", cache)
            caches.put(cache)
        started = time.monotonic()
        waiting = {pool.submit(drill, name, caches): name for name in names}
        for one in as_completed(waiting):
            problem = one.result()
            print(
                f"{'FAILED' if problem else 'green '} without {waiting[one]} ({time.monotonic() - started:.0f} s)",
                flush=True,
            )
            if problem:
                failed.append(waiting[one])
                print(problem)
    if failed:
        raise SystemExit(f"Not removable: {', '.join(failed)}")
    print(f"{len(names)} features come out, one by one")


if __name__ == "__main__":
    main()
