"""The import rules that make every battery removable, and a planted violation of each, so that the rules bite."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from sqlalchemy.orm import class_mapper
from sqlmodel import SQLModel

from backend.core import feature
from backend.features import FEATURES
from backend.testing import ROOT

PACKAGES = ("backend", "admin", "frontend")
BANNED_NAMES = {"utils", "helpers", "common", "constants"}
# The composition root and what stands above it: programs and the test fixtures.
TOP = {"backend.main", "backend.__main__", "backend.testing", "conftest"}


def modules(root: Path) -> dict[str, Path]:
    """Dotted name → file, for all code that is not a test or a migration."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            if "tests" in parts or "migrations" in parts:
                continue
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[tuple[str, int]]:
    """Every import in a file, inside functions too, as (module, level); level > 0 is a relative import."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield (inner if inner in known else str(node.module)), node.level


def feature_of(module: str) -> str | None:
    parts = module.split(".")
    return parts[2] if parts[:2] == ["backend", "features"] and len(parts) > 2 else None


def needs(root: Path, name: str) -> set[str]:
    """What a feature declares, read from its front page without importing it."""
    tree = ast.parse((root / "backend/features" / name / "__init__.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "needs":
            return set(ast.literal_eval(node.value))
    return set()


def forbidden(module: str, target: str, allowed: set[str]) -> str | None:
    """Why `module` may not import `target`, or None."""
    mine, theirs = feature_of(module), feature_of(target)
    if target in TOP and module not in TOP:
        return "nothing imports the composition root"
    if module.startswith("backend.core") and (
        theirs or target == "backend.features" or target.split(".", maxsplit=1)[0] != "backend"
    ):
        return "the kernel knows no feature, console or page"
    if mine and theirs and theirs != mine and theirs not in allowed:
        return f"{mine} does not name {theirs} in its needs"
    if mine and target == "backend.features":
        return "a feature does not know the registry"
    if mine and target.split(".", maxsplit=1)[0] in ("admin", "frontend"):
        return "features know neither the console nor the pages"
    outside = module.split(".", maxsplit=1)[0]
    if outside in ("admin", "frontend") and (theirs or not target.startswith(("backend.core", outside))):
        return f"{outside} imports the kernel only"
    return None


def violations(root: Path) -> list[str]:
    """Every breach of the import rules in the tree at `root`, a line each."""
    known = modules(root)
    found: list[str] = []
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        own = feature_of(module)
        allowed = needs(root, own) if own else set()
        if BANNED_NAMES & set(module.split(".")):
            found.append(f"{module}: name it after what it does")
        for target, level in imports(path, known):
            if level:
                found.append(f"{module}: relative import")
            elif target.split(".")[0] in PACKAGES:
                graph.setdefault(module, set()).add(target)
                if reason := forbidden(module, target, allowed):
                    found.append(f"{module} → {target}: {reason}")
    try:
        TopologicalSorter({module: targets - {module} for module, targets in graph.items()}).prepare()
    except CycleError as cycle:
        found.append(f"cycle: {' → '.join(cycle.args[1])}")
    return found


def test_imports_follow_the_arrows_without_cycles() -> None:
    assert violations(ROOT) == []


PLANTED = {
    "kernel imports a feature": ("backend/core/x.py", "from backend.features.b import thing", "knows no feature"),
    "kernel imports the console": ("backend/core/x.py", "import admin", "knows no feature"),
    "undeclared need": ("backend/features/a/x.py", "from backend.features.b import thing", "does not name b"),
    "undeclared need, inside a function": (
        "backend/features/a/x.py",
        "def f():\n    import backend.features.b",
        "does not name b",
    ),
    "feature imports the registry": (
        "backend/features/a/x.py",
        "from backend.features import FEATURES",
        "the registry",
    ),
    "feature imports the pages": ("backend/features/a/x.py", "import frontend", "neither the console"),
    "console imports a feature": ("admin/x.py", "from backend.features.a import thing", "kernel only"),
    "pages import the console": ("frontend/x.py", "import admin", "kernel only"),
    "somebody imports main": ("backend/features/a/x.py", "import backend.main", "composition root"),
    "relative import": ("backend/features/a/x.py", "from . import thing", "relative import"),
    "cycle": ("backend/core/x.py", "import backend.core.y", "cycle"),
    "junk drawer": ("backend/core/utils.py", "", "name it after what it does"),
}


@pytest.mark.parametrize("case", PLANTED, ids=str)
def test_a_planted_violation_is_caught(case: str, tmp_path: Path) -> None:
    path, code, complaint = PLANTED[case]
    front_page = "from backend.core.feature import Feature\nfeature = Feature(name='x', summary='')\nthing = 1\n"
    files = {
        "backend/__init__.py": "",
        "backend/main.py": "",
        "backend/core/__init__.py": "",
        "backend/core/feature.py": "",
        "backend/core/y.py": "import backend.core.x",
        "backend/features/__init__.py": "",
        "backend/features/a/__init__.py": front_page,
        "backend/features/b/__init__.py": front_page,
        "admin/__init__.py": "",
        "frontend/__init__.py": "",
    }
    for name, content in {"backend/core/x.py": "", **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert violations(tmp_path) == []
    (tmp_path / path).write_text(code)
    found = violations(tmp_path)
    assert len(found) == 1, found
    assert complaint in found[0]


def test_every_folder_has_its_line_and_every_line_its_folder() -> None:
    folders = {path.parent.name for path in (ROOT / "backend/features").glob("*/__init__.py")}
    assert folders == set(FEATURES)


def test_every_feature_says_what_it_is_for_and_has_tests() -> None:
    for one in feature.load("backend.features", FEATURES).features:
        assert one.summary
        assert list((ROOT / "backend/features" / one.name / "tests").glob("test_*.py")), f"{one.name} has no tests"


def test_tables_refer_only_to_tables_of_needed_features() -> None:
    registry = {one.name: one for one in feature.load("backend.features", FEATURES).features}
    owner = {mapper.local_table: feature_of(mapper.class_.__module__) for mapper in SQLModel._sa_registry.mappers}
    for mapper in SQLModel._sa_registry.mappers:
        mine = feature_of(mapper.class_.__module__)
        if mine is None:  # a table that a test made
            continue
        allowed = {mine, *registry[mine].needs}
        for key in mapper.local_table.foreign_keys:
            assert owner[key.column.table] in allowed, f"{mine} refers to {key.target_fullname} without needing it"
        for relation in class_mapper(mapper.class_).relationships:
            target = feature_of(relation.mapper.class_.__module__)
            assert target == mine, f"{mine} has a relationship to {target}: the parent would name its child"
