"""What people read can be extracted by Babel: no template and no panel says anything that is not marked."""

import ast
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from jinja2 import nodes

from backend.core.panels import SHARED
from backend.testing import ROOT
from frontend.site import HERE, templates

TEMPLATES = sorted(path for folder in (HERE / "templates", SHARED) for path in folder.glob("*.html"))
SAME_EVERYWHERE = {"UTC"}  # what is called so in every language
SPOKEN = {"aria-label", "alt", "title", "placeholder"}
LETTERS = re.compile(r"[A-Za-z]{2}")
SENTENCE = re.compile(r"[A-Z][a-z]|[a-z] [a-z]")  # what is said, and no name of a class or of an element

BLOCKS = {"Stat", "Chart", "Line", "Table", "Panel", "Incidents"}
WORDS = {"label", "note", "caption", "columns", "empty", "title"}
OF_THE_FIELD = {"p50", "p95", "p99"}


class Bare(HTMLParser):
    """Collects the text between tags, and that of attributes which are read aloud."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_code = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_code = tag == "code"
        self.found += [value.strip() for name, value in attrs if name in SPOKEN and value and LETTERS.search(value)]

    def handle_endtag(self, tag: str) -> None:
        self._in_code = False

    def handle_data(self, data: str) -> None:
        if not self._in_code and LETTERS.search(data) and data.strip() not in SAME_EVERYWHERE:
            self.found.append(data.strip())


def bare_text(source: str) -> list[str]:
    """What is left of a template without all that Jinja sees to."""
    parser = Bare()
    without = re.sub(r"\{% trans.*?endtrans %\}|\{#.*?#\}|\{%.*?%\}|\{\{.*?\}\}", "", source, flags=re.DOTALL)
    parser.feed(without)
    return parser.found


def marked(node: nodes.Node) -> Iterator[nodes.Const]:
    for call in node.find_all(nodes.Call):
        if isinstance(call.node, nodes.Name) and call.node.name in ("_", "gettext", "ngettext"):
            yield from call.find_all(nodes.Const)


def bare_constants(source: str) -> list[str]:
    """Sentences in the expressions that a template prints: `{{ "Up" if … }}`."""
    tree = templates.env.parse(source)
    fine = {id(one) for one in marked(tree)}
    return [
        one.value
        for output in tree.find_all(nodes.Output)
        for one in output.find_all(nodes.Const)
        if isinstance(one.value, str) and SENTENCE.search(one.value) and id(one) not in fine
    ]


def bare_words(source: str) -> list[str]:
    """Texts of panels that are not marked."""
    found = []
    for call in ast.walk(ast.parse(source)):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in BLOCKS):
            continue
        words = [one.value for one in call.keywords if one.arg in WORDS]
        words += call.args[:1] if call.func.id == "Line" else []
        parts = [part for one in words for part in (one.elts if isinstance(one, ast.Tuple | ast.List) else [one])]
        found += [
            ast.unparse(part)
            for part in parts
            if isinstance(part, ast.Constant | ast.JoinedStr)
            and LETTERS.search(ast.unparse(part))
            and not (isinstance(part, ast.Constant) and part.value in OF_THE_FIELD)
        ]
    return found


def panels() -> list[Path]:
    files = (ROOT / "backend/features").glob("*/*.py")
    return [one for one in sorted(files) if "from backend.core.status import" in one.read_text()]


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda one: one.name)
def test_templates_say_nothing_that_is_not_marked(template: Path) -> None:
    source = template.read_text()
    assert bare_text(source) == []
    assert bare_constants(source) == []


def test_panels_say_nothing_that_is_not_marked() -> None:
    assert {str(one.relative_to(ROOT)): found for one in panels() if (found := bare_words(one.read_text()))} == {}


def test_what_is_not_marked_is_found() -> None:
    assert bare_text('<p aria-label="Overall {{ x }}">Now <code>/live</code>{{ y }} UTC</p>') == ["Overall", "Now"]
    assert bare_constants('{{ "Up" if x else _("Down") }}') == ["Up"]
    source = 'Stat(label="Up"), Stat(label=_("x")), Table(columns=("When", "p50"), note=f"{x} of them")'
    assert bare_words(source) == ["'Up'", "'When'", "f'{x} of them'"]


def test_babel_finds_the_headings_of_the_page() -> None:
    extract = templates.env.extract_translations  # type: ignore[attr-defined]  # of the extension
    messages = [message for one in TEMPLATES for _line, _function, message in extract(one.read_text())]
    found = {message if isinstance(message, str) else message[0] for message in messages}
    assert {"Status", "Components", "Everything works", "Some systems are affected", "Where things are"} <= found
    assert "%(days)s days ago" in found
