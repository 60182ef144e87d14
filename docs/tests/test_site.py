"""The built site: every link leads somewhere, and a reader's browser asks nobody else for anything."""

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from backend.features import FEATURES
from scripts.link_check import problems_of_markdown, problems_of_site

pytestmark = pytest.mark.xdist_group("docs")

PLANTED = {
    "a page that is gone": ('<a href="gone.html">', "gone.html leads nowhere"),
    "an anchor that is gone": ('<a href="other.html#gone">', "other.html#gone names no place on that page"),
    "an anchor of its own": ('<a href="#gone">', "#gone names no place on that page"),
    "a picture that is gone": ('<img src="gone.png">', "gone.png leads nowhere"),
    "from the top": ('<a href="/gone/">', "/gone/ leads nowhere"),
    "a script of another host": ('<script src="https://cdn.example.com/a.js">', "serve it from here"),
    "a font of another host": ('<link rel="stylesheet" href="//fonts.example.com/a.css">', "serve it from here"),
}


@pytest.mark.parametrize("case", PLANTED, ids=str)
def test_a_planted_problem_is_found(case: str, tmp_path: Path) -> None:
    markup, complaint = PLANTED[case]
    (tmp_path / "other.html").write_text('<h2 id="here">Here</h2>')
    page = tmp_path / "index.html"
    page.write_text('<a href="other.html#here"><a href="https://example.com/"><img src="data:image/gif;base64,R0lGOD">')
    assert problems_of_site(tmp_path) == []
    page.write_text(page.read_text() + markup)
    (found,) = problems_of_site(tmp_path)
    assert complaint in found


def test_a_site_without_pages_is_a_problem(tmp_path: Path) -> None:
    assert problems_of_site(tmp_path)


def test_a_style_sheet_that_loads_from_elsewhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>")
    (tmp_path / "a.css").write_text("@import url('https://fonts.example.com/a.css')")
    assert len(problems_of_site(tmp_path)) == 1


def test_a_link_in_the_readme_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("[a](README.md) [b](https://example.com) ![c](gone.png)\n```\n[not](a-link.md)\n```\n")
    assert [line.rpartition(": ")[2] for line in problems_of_markdown(readme)] == ["gone.png leads nowhere"]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments: object) -> None:
        """Nothing: the tests' output is for the tests."""


@pytest.fixture
def served(site: Path) -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.browser
async def test_pages_ask_nobody_else_and_report_no_error(served: str, page: Any) -> None:
    asked: set[str] = set()
    complaints: list[str] = []
    page.on("request", lambda request: asked.add(request.url.split("/")[2]))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    for path in ("/", "/tutorial/first-hour/", "/explanation/architecture/", "/reference/settings/"):
        await page.goto(served + path, wait_until="networkidle")
    await page.locator("input.md-search__input").press_sequentially("permission")  # it listens to keys
    await page.locator(".md-search-result__item").first.wait_for()
    assert complaints == []
    assert asked == {served.split("/")[2]}


@pytest.mark.browser
async def test_diagrams_follow_the_pages_light_and_dark(served: str, page: Any) -> None:
    inks = []
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        await page.goto(f"{served}/explanation/architecture/", wait_until="networkidle")
        assert await page.locator("svg.diagram").count() == 3
        inks.append(await page.locator("svg.diagram .d-name").first.evaluate("one => getComputedStyle(one).fill"))
    assert inks[0] != inks[1]


@pytest.mark.browser
async def test_the_api_is_rendered_from_our_own_files(served: str, page: Any, make_app: Callable[..., FastAPI]) -> None:
    if "docs" not in FEATURES:
        pytest.skip("the viewer went with the docs feature")
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url.split("/")[2]))
    await page.goto(f"{served}/reference/api.html", wait_until="networkidle")
    await page.get_by_text(make_app().openapi()["info"]["title"]).first.wait_for()
    assert asked == {served.split("/")[2]}
