"""The removal drill: a feature leaves with its folder and its one line, and everything that remains is green.

`--together 8` takes eight at a time, in an eighth of the time: what fails is halved until it is one, and only that
counts. Missed is a test of one that leans on another of its eight; alone, each run finds all.

A feature with tables leaves a database behind in which they still are; `./scripts/migrate new` writes the migration
that drops them, as a person would, and the tests of the migrations then hold it to account.
"""

import argparse
import os
import re
import shutil
import subprocess
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


def drill(names: tuple[str, ...], caches: Queue[Path]) -> dict[str, str]:
    """What was printed for those whose removal is not green."""
    mypy_cache = caches.get()
    try:
        return _halving(names, mypy_cache)
    finally:
        caches.put(mypy_cache)


def _halving(names: tuple[str, ...], mypy_cache: Path) -> dict[str, str]:
    problem = _drill(names, mypy_cache)
    if problem is None or len(names) == 1:
        return {names[0]: problem} if problem else {}
    print(f"not green without {', '.join(names)}: now each half, after\n{problem[-2000:]}", flush=True)
    half = len(names) // 2
    return _halving(names[:half], mypy_cache) | _halving(names[half:], mypy_cache)


def has_tables(name: str) -> bool:
    return any("table=True" in path.read_text() for path in (ROOT / "backend/features" / name).rglob("*.py"))


def _drill(names: tuple[str, ...], mypy_cache: Path) -> str | None:
    """None when all is green without these, else what was printed."""
    with tempfile.TemporaryDirectory(prefix=f"without-{names[0]}-") as folder:
        tree, database = Path(folder) / "tree", Path(folder) / "old.db"
        tree.mkdir()
        copy_tree(tree)
        for name in names:
            take_out(tree, name)
        tables = any(map(has_tables, names))
        if tables:
            written = run(tree, "backend", "new-migration", f"drop {' '.join(names)}", database=database)
            if written.returncode:
                return written.stdout + written.stderr
        steps = [("pytest", *PYTEST), ("mypy", "--cache-dir", str(mypy_cache))]
        if tables:
            steps.append(("pytest", "-q", "backend/tests/test_migrations.py", "--databases", "postgresql"))
        for step in steps:
            result = run(tree, *step, database=database)
            if not result.returncode:
                continue
            if again := once_more(tree, step, database):
                return result.stdout + result.stderr + again
            print(f"without {', '.join(names)}: passed at the second try, after\n{result.stdout[-2000:]}", flush=True)
    return None


def apart(names: list[str], size: int) -> list[tuple[str, ...]]:
    """In groups of so many; neighbours in the registry often have to do with each other, and are kept apart."""
    groups = -(-len(names) // size)
    return [tuple(names[first::groups]) for first in range(groups)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="./scripts/check-removable", description=__doc__)
    parser.add_argument("features", nargs="*", help="these; else all but the spine")
    parser.add_argument("--together", type=int, default=1, metavar="N", help="so many at a time")
    options = parser.parse_args()
    names = options.features or [name for name in FEATURES if name not in SPINE]
    needed = {need for one in feature.load("backend.features", FEATURES).features for need in one.needs}
    if kept := (SPINE | needed) & set(names):
        raise SystemExit(f"Other features need {', '.join(sorted(kept))}: take those out first")
    failed: dict[str, str] = {}
    caches: Queue[Path] = Queue()
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="mypy-") as folder, ThreadPoolExecutor(cores) as pool:
        for number in range(cores):  # two that share a cache would undo each other's work
            cache = Path(folder) / str(number)
            if (ROOT / ".mypy_cache").exists():
                shutil.copytree(ROOT / ".mypy_cache", cache)
            caches.put(cache)
        started = time.monotonic()
        waiting = {pool.submit(drill, group, caches): group for group in apart(names, options.together)}
        for one in as_completed(waiting):
            problems, took = one.result(), time.monotonic() - started
            print(f"{'FAILED' if problems else 'green '} without {', '.join(waiting[one])} ({took:.0f} s)", flush=True)
            for name, problem in problems.items():
                print(f"--- without {name}\n{problem}")
            failed |= problems
    if failed:
        raise SystemExit(f"Not removable: {', '.join(failed)}")
    how = "one by one" if options.together == 1 else f"{options.together} at a time"
    print(f"{len(names)} features come out, {how}")


if __name__ == "__main__":
    main()
