"""docs/security.md has a row for each requirement of the standard, and what it names is in this tree."""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from backend.core.feature import load
from backend.features import FEATURES
from backend.testing import ROOT

PAGE = (ROOT / "docs/security.md").read_text()
FEATURE_FOLDERS = ROOT / "backend/features"
ROW = re.compile(r"^\| (\d+\.\d+)\.(\d+) \| ([123]) \| [^|]+ \| (yes|partly|no|n/a) \| ([^|]+) \|$", re.MULTILINE)
REFERENCE = re.compile(r"`((?:[\w.-]+/)+[\w.-]+|[\w.-]+\.txt)(?:::(\w+))?`")
SETTING = re.compile(r"`([A-Z_]+?)__([A-Z_]+)`")

# Section → the levels of its requirements, in order: ASVS 5.0.0.
LEVELS = """
6.1=122 6.2=111111112222 6.3=11223333 6.4=112233 6.5=22222333 6.6=2223 6.7=33 6.8=2222
7.1=222 7.2=1111 7.3=22 7.4=11222 7.5=223 7.6=22
8.1=1233 8.2=1123 8.3=133 8.4=23
9.1=111 9.2=1222
10.1=22 10.2=223 10.3=22223 10.4=1111122222233333 10.5=22222 10.6=22 10.7=222
11.1=2233 11.2=22233 11.3=11233 11.4=1222 11.5=23 11.6=23 11.7=33
"""


class Row(NamedTuple):
    section: str
    number: str
    level: str
    met: str
    where: str


ROWS = [Row(*found) for found in ROW.findall(PAGE)]


def feature_of(path: str) -> str:
    """The feature whose folder this is in; empty when it is in none."""
    found = re.match(r"backend/features/(\w+)/", path)
    return found[1] if found else ""


def is_gone(feature: str) -> bool:
    """Taken out, folder and line: what the page says of it is for the owner to delete."""
    return bool(feature) and feature not in FEATURES and not (FEATURE_FOLDERS / feature).exists()


@cache
def functions(path: Path) -> set[str]:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, kinds)}


def test_each_requirement_has_a_row_with_its_level() -> None:
    wanted = [
        (section, str(number), level)
        for section, levels in re.findall(r"(\S+)=(\d+)", LEVELS)
        for number, level in enumerate(levels, 1)
    ]
    assert [(row.section, row.number, row.level) for row in ROWS] == wanted
    assert len(ROWS) == len(re.findall(r"^\| \d+\.\d+\.\d+ ", PAGE, re.MULTILINE)), "a row of another shape"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.section}.{row.number}")
def test_a_row_says_where_or_why_not(row: Row) -> None:
    if row.met != "yes":
        assert re.search(r"[a-z]{3}", re.sub(r"`[^`]*`", "", row.where))
    elif row.level < "3":
        assert REFERENCE.search(row.where) or "](" in row.where


@pytest.mark.parametrize(("path", "test"), sorted(set(REFERENCE.findall(PAGE))))
def test_what_is_named_exists(path: str, test: str) -> None:
    if is_gone(feature_of(path)):
        pytest.skip(f"{feature_of(path)} was taken out")
    assert (ROOT / path).is_file()
    assert not test or test in functions(ROOT / path)


def test_settings_that_are_named_exist() -> None:
    known = {name for one in load("backend.features", FEATURES).settings for name in one.variables()}
    gone = {feature for path, _ in REFERENCE.findall(PAGE) if is_gone(feature := feature_of(path))}
    named = {f"{section}__{name}" for section, name in SETTING.findall(PAGE) if section.lower() not in gone}
    assert named
    assert not named - known
