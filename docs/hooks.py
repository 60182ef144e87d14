"""What MkDocs calls while it builds: fills in what is read from the code, adds the viewer, colours the diagrams."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent
VIEWER = ROOT / "backend/features/docs/static"  # Redoc, which the app serves too
VIEWER_FILES = ("docs.css", "redoc.js", "badge.svg", "redoc/redoc.standalone.js", "redoc/LICENSE")
VIEWER_LINK = "**[Read it in Redoc](api.html)** for every field and example."
PART = re.compile(r"^\{\{ (\w+) \}\}$", re.MULTILINE)
DIAGRAM = re.compile(r'<img alt="([^"]*)" src="[^"]*diagrams/([a-z-]+\.svg)" ?/?>')

parts: dict[str, str] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Decisions are numbered: their order in the menu needs no list."""
    pages = sorted(f"decisions/{path.name}" for path in Path(config.docs_dir, "decisions").glob("*.md"))
    explanation = next(section for section in config.nav or [] if "Explanation" in section)
    explanation["Explanation"].append({"Decisions": pages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Read the code, as it is now. The settings of whoever builds are kept out: the pages show the defaults."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | {"ENV_FILE": ""}
    read = subprocess.run(
        [sys.executable, "-m", "docs.generate"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if read.returncode:
        raise PluginError(f"the code cannot be read:\n{read.stderr}")
    parts.update(json.loads(read.stdout))
    files.append(File.generated(config, "reference/openapi.json", content=parts["openapi"]))
    page = files.get_file_from_path("reference/api.html")
    if VIEWER.exists():
        parts["viewer"] = VIEWER_LINK
        for name in VIEWER_FILES:
            files.append(File.generated(config, f"reference/viewer/{name}", abs_src_path=str(VIEWER / name)))
    elif page:  # the feature that brings the viewer was taken out
        parts["viewer"] = ""
        files.remove(page)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """`{{ settings }}` on a line of its own becomes that part; an unknown name is an error."""
    return PART.sub(lambda found: parts[found[1]], markdown)


def on_page_content(html: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """A diagram becomes part of its page, to follow its light or dark; in a plain Markdown viewer it is an image."""

    def inline(found: re.Match[str]) -> str:
        alt, name = found.groups()
        svg = (Path(config.docs_dir) / "diagrams" / name).read_text()
        return svg.replace("<svg ", f'<svg class="diagram" role="img" aria-label="{alt}" ', 1)

    return DIAGRAM.sub(inline, html)
