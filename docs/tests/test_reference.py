"""The built reference names every setting, permission, event, error, metric, command, route, feature of this tree."""

import html
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI

from backend.__main__ import parser
from backend.core.config import PLATFORM_NAMES
from backend.core.errors import HTTP_CODES
from backend.core.feature import load
from backend.features import FEATURES
from backend.testing import ROOT, new_client
from docs import generate

pytestmark = pytest.mark.xdist_group("docs")  # the site is built once
Reference = Callable[[str], str]


@pytest.fixture
def reference(site: Path) -> Reference:
    """The text of what a page of the reference sets in type as code, and its headings."""

    def codes(name: str) -> str:
        page = (site / "reference" / name / "index.html").read_text()
        article = page[page.index("<article") : page.index("</article>")]
        return "\n".join(html.unescape(found) for found in re.findall(r"<(?:code|h\d)[^>]*>([^<]*)<", article))

    return codes


def lines_missing(wanted: set[str], text: str) -> set[str]:
    assert wanted
    return wanted - set(text.splitlines())


def test_every_setting_is_there(reference: Reference) -> None:
    classes = load("backend.features", FEATURES).settings
    wanted = {name for one in classes for name in one.variables()}
    ours = {theirs.upper() for theirs, setting in PLATFORM_NAMES.items() if setting.upper() in wanted}
    assert not lines_missing(wanted | ours, reference("settings"))


def test_every_permission_is_there(reference: Reference) -> None:
    assert not lines_missing(set(load("backend.features", FEATURES).permissions), reference("permissions"))


def test_every_rate_limit_is_there(reference: Reference) -> None:
    """Read from the source by other means than the generator's."""
    sources = [path.read_text() for folder in ("backend/features", "admin") for path in (ROOT / folder).rglob("*.py")]
    call = re.compile(r'\b(?:limit|declare|MessageLimit)\(\s*"([a-z]\w*\.\w+)", "\d+/\w+"')
    names = {name for text in sources for name in call.findall(text) if not name.startswith("test.")}
    assert not lines_missing(names, reference("rate-limits"))


def test_every_event_is_there(reference: Reference) -> None:
    """Read from the source by other means than the generator's."""
    sources = [path.read_text() for path in (ROOT / "backend/features").rglob("*.py") if "tests" not in path.parts]
    kinds = {name for text in sources for name in re.findall(r"^class (\w+)\((?:\w*Event)\):", text, re.MULTILINE)}
    actions = {name for text in sources for name in re.findall(r'action: ClassVar\[str\] = "([\w.]+)"', text)}
    assert not lines_missing(kinds | actions, reference("events"))


def test_every_feature_is_there(reference: Reference) -> None:
    assert not lines_missing(set(FEATURES), reference("features"))


def test_every_error_class_and_code_is_there(reference: Reference) -> None:
    generate.import_everything()
    kinds = {kind for kind in generate.error_classes() if kind.__module__.startswith("backend.")}
    text = reference("errors")
    assert not lines_missing({kind.__name__ for kind in kinds} | {kind.code for kind in kinds}, text)
    assert not lines_missing(set(HTTP_CODES.values()), text)


def test_every_answer_with_a_code_of_its_own_is_there(reference: Reference) -> None:
    """Read from the source by other means than the generator's: what stands where `error_response` takes its code."""
    sources = [path.read_text() for path in (ROOT / "backend").rglob("*.py") if "tests" not in path.parts]
    call = re.compile(r"error_response\(\s*[\w.()]+,\s*\d+,\s*\"(\w+)\"")
    assert not lines_missing(
        {name for text in sources for name in call.findall(text)} | {"internal_error"}, reference("errors")
    )


DECLARED = re.compile(r'\b(?:Gauge|Counter|Histogram|Summary|Enum|Info|\w+MetricFamily)\(\s*"(\w+)"')


async def test_every_metric_is_there(reference: Reference, make_app: Callable[..., FastAPI]) -> None:
    """Those that the code declares, and those that a scrape names."""
    sources = "".join(path.read_text() for path in (ROOT / "backend").rglob("*.py") if "tests" not in path.parts)
    async with new_client(make_app()) as client:
        scrape = (await client.get("/metrics")).text
    wanted = set(DECLARED.findall(sources)) | set(re.findall(r"^# TYPE (\w+) ", scrape, re.MULTILINE))
    named = {name.removesuffix("_total") for name in reference("metrics").splitlines()}
    assert bool(wanted) == ("metrics" in FEATURES)
    assert not {name for name in wanted if name.removesuffix("_total") not in named}


def test_every_command_and_script_is_there(reference: Reference) -> None:
    text = reference("commands")
    usage = parser().format_help()
    listed = set(re.findall(r"^    ([a-z][a-z-]*)", usage, re.MULTILINE))
    assert not lines_missing(listed, text)
    scripts = {f"./scripts/{path.name}" for path in (ROOT / "scripts").iterdir() if path.is_file() and not path.suffix}
    assert not lines_missing(scripts, text)


def test_every_script_says_what_it_is_for() -> None:
    assert not [name for name, text in generate.scripts().items() if len(text) < 10]


def test_every_operation_is_there(reference: Reference, make_app: Callable[..., FastAPI]) -> None:
    paths = {re.sub(r"^/api/v\d+", "", path) for path in make_app().openapi()["paths"]}
    assert not lines_missing(paths, reference("http-api"))
