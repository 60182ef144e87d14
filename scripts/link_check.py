"""Every link of a built site, and of Markdown files beside it, leads somewhere; nothing is loaded from other hosts.

`python -m scripts.link_check SITE [FILE.md …]`. MkDocs checks links between pages; this also sees images, scripts, what
templates and generated HTML contain, and the README. Links to other sites are left alone: a build needs no network.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# What a browser fetches by itself; a link is followed by a person.
LOADED = {
    "img": "src",
    "script": "src",
    "link": "href",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "audio": "src",
}
ELSEWHERE = ("http", "https", "mailto", "data", "javascript")
MARKDOWN_LINK = re.compile(r"\]\(([^)\s]+)")
FENCE = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
CSS_LOADS = re.compile(r"""(?:@import\s+|url\()\s*["']?(?:https?:)?//""")


class Links(HTMLParser):
    """The ids of a page and what it refers to, as (address, whether it is loaded)."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.found: list[tuple[str, bool]] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.ids |= {value for name in ("id", "name") if (value := values.get(name))}
        canonical = values.get("rel") in ("canonical", "next", "prev")
        if (address := values.get(LOADED.get(tag, ""))) and not canonical:
            self.found.append((address, True))
        elif tag in ("a", "area", "link") and (address := values.get("href")):
            self.found.append((address, False))


def read(page: Path) -> Links:
    links = Links()
    links.feed(page.read_text())
    return links


def target_of(site: Path, page: Path, path: str) -> Path:
    start = site if path.startswith("/") else page.parent
    target = (start / unquote(path).lstrip("/")).resolve() if path else page
    return target / "index.html" if target.is_dir() else target


def problems_of_site(site: Path) -> list[str]:
    pages = {page: read(page) for page in sorted(site.resolve().rglob("*.html"))}
    problems = [] if pages else [f"there are no pages in {site}"]
    for page, links in pages.items():
        for address, loaded in links.found:
            url = urlsplit(address)
            if url.scheme in ELSEWHERE or url.netloc:
                if loaded and url.scheme != "data":
                    problems.append(f"{page.relative_to(site.resolve())} loads {address}: serve it from here")
                continue
            target = target_of(site.resolve(), page, url.path)
            fragment = unquote(url.fragment)
            if not target.exists():
                problems.append(f"{page.relative_to(site.resolve())}: {address} leads nowhere")
            elif fragment and target in pages and fragment not in pages[target].ids:
                problems.append(f"{page.relative_to(site.resolve())}: {address} names no place on that page")
    sheets = [sheet for sheet in site.rglob("*.css") if CSS_LOADS.search(sheet.read_text())]
    problems += [f"{sheet} loads something from another host" for sheet in sheets]
    return problems


def problems_of_markdown(file: Path) -> list[str]:
    links = MARKDOWN_LINK.findall(FENCE.sub("", file.read_text()))
    local = [link for link in links if urlsplit(link).scheme not in ELSEWHERE and urlsplit(link).path]
    return [f"{file}: {link} leads nowhere" for link in local if not (file.parent / urlsplit(link).path).exists()]


def main() -> None:
    site, *files = map(Path, sys.argv[1:])
    problems = problems_of_site(site) + [line for file in files for line in problems_of_markdown(file)]
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(list(site.rglob('*.html')))} pages, every link leads somewhere")


if __name__ == "__main__":
    main()
