"""Builds the image and tries it as it will run: as its own user, with a read-only root, as the first process.

Docker is used when its engine answers, else podman, else buildah (as root). Where the base image cannot be pulled,
buildah gets a stand-in for it, made by debootstrap.
"""

import atexit
import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx2
from sqlalchemy.engine import make_url

from backend import testing

ROOT = Path(__file__).resolve().parent.parent
TAG = "mainstay:check"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
[BASE] = set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE))  # of both stages
HEALTH: list[str] = json.loads(re.findall(r"^HEALTHCHECK .*?(\[.*?\])$", DOCKERFILE, re.MULTILINE | re.DOTALL)[0])
SOCKET = "/tmp/postgresql/.s.PGSQL.5432"  # noqa: S108  where a container finds that of a server without a port
LARGEST = 150  # MB that the image may add to its base
GRACE = 40  # seconds from SIGTERM to the end: the drain, and what running requests get
PATIENCE = 60  # seconds that anything else may take
# What belongs to making and testing the app, not to running it.
UNWANTED = re.compile(
    r"/tests/|/site-packages/(pip|setuptools|pytest|ruff|mypy)/|/\.(git|env|cache|venv)(/|$)|^/requirements|\.whl$"
    r"|^/app/(?!(backend|admin|frontend|alembic\.ini$|LICENSE$))|^/app/backend/testing"
)
WANTED = [
    "/app/alembic.ini",
    "/app/LICENSE",
    "/app/backend/migrations/script.py.mako",
    "/app/backend/core/layouts/mail.html",
    "/app/frontend/static/style.css",
]
CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
STAND_IN = Path("/var/tmp/mainstay-check-base")  # noqa: S108  kept, because making it takes a minute

Environment = dict[str, str]


@dataclass
class Container:
    """A running container: its process, what it says, and how to send SIGTERM to the first process inside."""

    process: subprocess.Popen[str]
    output: IO[str]
    terminate: Callable[[], None]

    def said(self) -> str:
        self.output.seek(0)
        return self.output.read()


# What runs inside of the image, for facts that only it knows.
FILES = """
import json, os
skipped = {"/proc", "/sys", "/dev", "/tmp"}
found = {}
for folder, folders, names in os.walk("/"):
    folders[:] = [one for one in folders if os.path.join(folder, one) not in skipped]
    for name in names:
        path = os.path.join(folder, name)
        found[path] = os.lstat(path).st_size
print(json.dumps(found))
"""
CONFINEMENT = """
import errno, json, os, shutil, sys
why = {}
for folder in ("/", "/app", "/app/backend", "/venv", "/etc", "/run", "/var/tmp", "/tmp"):
    try:
        open(os.path.join(folder, "written"), "w").close()
        why[folder] = "written"
    except OSError as refused:
        why[folder] = errno.errorcode[refused.errno]
tools = [one for one in ("gcc", "cc", "g++", "clang", "make", "git") if shutil.which(one)]
ids = {"user": os.getuid(), "group": os.getgid(), "process": os.getpid()}
print(json.dumps({"writing": why, "tools": tools, "python": sys.version.split()[0], **ids}))
"""


def succeed(*command: str | Path, cwd: Path | None = None) -> str:
    """Standard output of a command that has to succeed."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


@contextlib.contextmanager
def started(command: list[str], environment: Environment | None = None) -> Iterator[tuple[Any, IO[str]]]:
    """A process and the file of its output; killed if it does not end by itself."""
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, text=True)
        try:
            yield process, output
        finally:
            process.kill()
            process.wait()


class Docker:
    """Docker, or podman, which takes the same arguments."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.socket = ""

    def build(self) -> None:
        if image := os.environ.get("IMAGE"):  # what a registry has, and is about to get its tags
            succeed(self.program, "pull", image)
            succeed(self.program, "tag", image, TAG)
            return
        docker_format = ["--format", "docker"] if self.program == "podman" else []  # podman's own has no HEALTHCHECK
        succeed(self.program, "build", *docker_format, "--tag", TAG, ".", cwd=ROOT)

    @contextlib.contextmanager
    def container(
        self,
        *command: str,
        environment: Environment,
        image: str = TAG,
        entrypoint: tuple[str, ...] = (),
        user: str = "",
    ) -> Iterator[Container]:
        name = f"mainstay-check-{secrets.token_hex(4)}"
        options = ["--rm", "--name", name, "--network", "host", "--read-only", "--tmpfs", "/tmp"]  # noqa: S108
        options += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        options += [word for variable in environment.items() for word in ("--env", "=".join(variable))]
        if self.socket:
            options += ["--volume", f"{self.socket}:{SOCKET}"]
        if user:
            options += ["--user", user]
        if entrypoint:
            options += ["--entrypoint", entrypoint[0]]
        with started([self.program, "run", *options, image, *entrypoint[1:], *command]) as (process, output):
            try:
                yield Container(process, output, lambda: self._terminate(name))
            finally:
                subprocess.run([self.program, "rm", "--force", name], capture_output=True, check=False)

    def _terminate(self, name: str) -> None:
        succeed(self.program, "kill", "--signal", "TERM", name)


class Buildah:
    """Buildah builds. Then the image is entered as containers are: own mounts, own process ids, read-only, its user.

    (`buildah run` has neither a read-only root nor process ids of its own without an OCI runtime, which wants more
    rights than machines have that fall back to this.)
    """

    ENTER = f"""
    set -eu
    root=$1 folder=$2 user=$3 socket=$4; shift 4
    mount --bind "$root" "$root"
    mount -o remount,bind,ro "$root"
    mount -t proc proc "$root/proc"
    mount --rbind /dev "$root/dev"
    mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
    if [ -n "$socket" ]; then
        mkdir "$root{Path(SOCKET).parent}"
        touch "$root{SOCKET}"
        mount --bind "$socket" "$root{SOCKET}"
    fi
    exec chroot --userspec="$user" "$root" /usr/bin/env --chdir="$folder" "$@"
    """

    def __init__(self) -> None:
        self.socket = ""
        self.roots: dict[str, str] = {}
        self.settings: dict[str, dict[str, Any]] = {}

    def build(self) -> None:
        base = BASE
        if not (self._succeeds("inspect", "--type", "image", BASE) or self._succeeds("pull", BASE)):
            print(f"{BASE} cannot be pulled here: a stand-in, made by debootstrap, takes its place", flush=True)
            base = BASE.partition("@")[0]  # a stand-in has another digest
            self._make_stand_in(base)
        bud = [
            "bud",
            "--isolation",
            "chroot",
            "--no-cache",
            "--force-rm",
            "--pull-never",
            "--format",
            "docker",
            "--tag",
            TAG,
        ]
        with tempfile.NamedTemporaryFile("w") as recipe:
            recipe.write(DOCKERFILE.replace(BASE, base))
            recipe.flush()
            succeed("buildah", *bud, "--file", recipe.name, ".", cwd=ROOT)
        for name, image in ((BASE, base), (TAG, TAG)):
            container = succeed("buildah", "from", "--pull-never", image).strip()
            atexit.register(succeed, "buildah", "rm", container)
            self.roots[name] = succeed("buildah", "mount", container).strip()
            described = json.loads(succeed("buildah", "inspect", "--type", "image", image))
            self.settings[name] = described["Docker"]["config"]

    def _succeeds(self, *arguments: str) -> bool:
        return subprocess.run(["buildah", *arguments], capture_output=True, check=False).returncode == 0

    def _make_stand_in(self, base: str) -> None:
        if not shutil.which("debootstrap"):
            sys.exit("debootstrap, which could make one, is missing: apt-get install debootstrap")
        if not (STAND_IN / ".ready").exists():
            shutil.rmtree(STAND_IN, ignore_errors=True)
            packages = "--include=python3,python3-venv,python3-pip,ca-certificates"
            succeed("debootstrap", "--variant=minbase", packages, base.rsplit("-", 1)[-1], STAND_IN)
            # It trusts whom this machine trusts, and its programs answer to the names that the real base's answer to.
            shutil.copy(Path("/") / CERTIFICATES, STAND_IN / CERTIFICATES)
            (STAND_IN / "etc/pip.conf").write_text(f"[global]\ncert = /{CERTIFICATES}\n")
            for marker in STAND_IN.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
                marker.unlink()
            (STAND_IN / "usr/local/bin/python").symlink_to("/usr/bin/python3")
            (STAND_IN / ".ready").touch()
        with tempfile.NamedTemporaryFile("w") as recipe:
            recipe.write("FROM scratch\nADD . /\n")
            recipe.flush()
            name = f"docker.io/library/{base}"
            succeed("buildah", "bud", "--isolation", "chroot", "--file", recipe.name, "--tag", name, STAND_IN)

    @contextlib.contextmanager
    def container(
        self,
        *command: str,
        environment: Environment,
        image: str = TAG,
        entrypoint: tuple[str, ...] = (),
        user: str = "",
    ) -> Iterator[Container]:
        settings = self.settings[image]
        variables = dict(one.split("=", 1) for one in settings.get("Env") or []) | environment
        variables["PATH"] = f"{variables.get('PATH', '')}:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        inside = entrypoint or (*settings["Entrypoint"], *(() if command else settings["Cmd"]))
        place = self.roots[image], settings.get("WorkingDir") or "/", user or settings["User"], self.socket
        unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", self.ENTER, "enter"]
        with started([*unshare, *place, *inside, *command], variables) as (process, output):
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            yield Container(process, output, lambda: os.kill(int(children.read_text().split()[0]), signal.SIGTERM))


Engine = Docker | Buildah


def choose_engine() -> Engine:
    for program in ("docker", "podman"):
        if shutil.which(program):
            answer = subprocess.run([program, "version"], capture_output=True, check=False)  # of the engine, too
            if answer.returncode == 0:
                return Docker(program)
    if shutil.which("buildah") and os.geteuid() == 0:
        return Buildah()
    sys.exit("No engine of Docker answers, and neither podman is here, nor buildah with root: install one of them")


def run(engine: Engine, *command: str, **options: Any) -> tuple[int, str]:
    """Exit code and output of a container that ends by itself."""
    options.setdefault("environment", {})
    with engine.container(*command, **options) as container:
        return container.process.wait(timeout=PATIENCE), container.said()


def ask(engine: Engine, question: str, **options: Any) -> Any:
    """What a piece of Python prints inside of the image, as JSON."""
    code, answer = run(engine, entrypoint=("python", "-c", question), **options)
    require(code == 0, answer)
    return json.loads(answer)


def require(fact: object, otherwise: str) -> None:
    if not fact:
        sys.exit(otherwise)


@contextlib.contextmanager
def servers(engine: Engine) -> Iterator[Environment]:
    """An empty database of PostgreSQL and a Redis, as settings for the image; the tests' own, if none are named."""
    with contextlib.ExitStack() as stack:
        if "TEST_POSTGRESQL_URL" not in os.environ:
            testing.start_postgresql(stack.callback)
        if "TEST_REDIS_URL" not in os.environ:
            testing.start_redis(stack.callback)
        url = make_url(stack.enter_context(testing.temporary_database("postgresql"))).set(drivername="postgresql")
        if folder := url.query.get("host"):
            engine.socket = f"{folder}/{Path(SOCKET).name}"
            url = url.set(query={"host": str(Path(SOCKET).parent)})
        yield {
            "DATABASE__URL": url.render_as_string(hide_password=False),
            "REDIS__URL": os.environ["TEST_REDIS_URL"],
            "API__PUBLIC_URL": "https://example.com",
            "MAIL__BACKEND": "smtp",
        }


def check_content(engine: Engine) -> None:
    base, image = (ask(engine, FILES, image=one, user="0:0") for one in (BASE, TAG))
    added = {path: size for path, size in image.items() if base.get(path) != size}
    size = sum(added.values()) / 1e6
    print(f"Content: {size:.0f} MB in {len(added)} files on top of a base of {sum(base.values()) / 1e6:.0f} MB")
    require(size <= LARGEST, f"The image adds {size:.0f} MB to its base; {LARGEST} MB are allowed")
    require(
        not (found := [path for path in added if UNWANTED.search(path)]), f"These must not be in the image: {found}"
    )
    sources = [path for path in image if path.startswith(("/app/", "/venv/")) and path.endswith(".py")]
    compiled = sum("/__pycache__/" in path for path in image if path.startswith(("/app/", "/venv/")))
    require(compiled >= len(sources) > 1000, f"{len(sources)} files of Python, but {compiled} compiled ones")
    missing = [path for path in WANTED if path not in image]
    require(not missing, f"These are missing in the image: {missing}")


def check_confinement(engine: Engine) -> None:
    inside = ask(engine, CONFINEMENT)
    stand_in = "" if inside["python"] in BASE else f", a stand-in: this is not {BASE}"
    print(f"Inside: Python {inside['python']}{stand_in}; user {inside['user']}, read-only")
    require(inside["writing"].pop("/tmp") == "written", "/tmp cannot be written to")  # noqa: S108
    require(set(inside["writing"].values()) == {"EROFS"}, f"The root is not read-only: {inside['writing']}")
    require((inside["user"], inside["group"], inside["process"]) == (10001, 10001, 1), f"Not confined: {inside}")
    require(not inside["tools"], f"Build tools in the image: {inside['tools']}")


def check_refusal(engine: Engine) -> None:
    code, answer = run(engine, environment={"DEBUG": "true"})
    plain = (
        "Unsafe settings for production" in answer and "SECURITY__SECRET_KEY" in answer and "Traceback" not in answer
    )
    require(code == 1 and plain, f"Unsafe settings are not refused in plain words (exit code {code}):\n{answer}")
    print(f"Refuses unsafe settings: {answer.strip().splitlines()[-1].strip(' -')}")


def check_migrations(engine: Engine, environment: Environment) -> None:
    migrating = [engine.container("migrate", environment=environment) for _ in range(2)]
    with migrating[0] as one, migrating[1] as two:
        codes = [container.process.wait(timeout=PATIENCE) for container in (one, two)]
        require(codes == [0, 0], f"Two that migrate at once: {codes}\n{one.said()}\n{two.said()}")
    code, answer = run(engine, "migrate", environment=environment)
    require(code == 0 and "as they should be" in answer, f"The third migration: {code}\n{answer}")
    print(f"Two migrations at once, and a third: {answer.strip()}")


def check_api(engine: Engine, environment: Environment) -> None:
    base = f"http://127.0.0.1:{environment['PORT']}"
    begun = time.monotonic()
    with engine.container(environment=environment) as container:
        while True:
            with contextlib.suppress(httpx2.TransportError):
                if (answer := httpx2.get(f"{base}/ready")).status_code == 200:
                    break
            late = time.monotonic() - begun > PATIENCE or container.process.poll() is not None
            require(not late, f"The app does not become ready:\n{container.said()}")
            time.sleep(0.1)
        print(f"Ready after {time.monotonic() - begun:.1f} s: {answer.text}")
        require(answer.json() == {"status": "ok"}, f"PostgreSQL or Redis is not reached:\n{container.said()}")
        person = {"email": "image@example.com", "password": secrets.token_urlsafe()}
        require(httpx2.post(f"{base}/api/v1/auth/signup", json=person).status_code == 201, "Signing up fails")
        form = {"username": person["email"], "password": person["password"]}
        require(httpx2.post(f"{base}/api/v1/auth/token", data=form).status_code == 200, "Signing in fails")
        for page in ("/", "/admin/login", "/openapi.json"):
            require(httpx2.get(f"{base}{page}").status_code == 200, f"{page} is not served")
        code, answer_inside = run(engine, entrypoint=tuple(HEALTH), environment=environment)
        require(code == 0, f"The health check fails: {answer_inside}")

        begun = time.monotonic()
        container.terminate()
        code = container.process.wait(timeout=GRACE)
        require(code == 0, f"SIGTERM ends it with exit code {code}:\n{container.said()}")
        print(f"SIGTERM ends it after {time.monotonic() - begun:.1f} s, exit code 0")
        require("Traceback" not in container.said(), container.said())
    code, _ = run(engine, entrypoint=tuple(HEALTH), environment=environment)
    require(code == 1, "The health check passes though nothing runs")


def main() -> None:
    engine = choose_engine()
    begun = time.monotonic()
    engine.build()
    name = engine.program if isinstance(engine, Docker) else "buildah"
    print(f"Built by {name} in {time.monotonic() - begun:.0f} s", flush=True)
    check_content(engine)
    check_confinement(engine)
    check_refusal(engine)
    with servers(engine) as urls:
        environment = {**urls, "SECURITY__SECRET_KEY": secrets.token_urlsafe(48), "PORT": str(testing.free_port())}
        check_migrations(engine, environment)
        check_api(engine, environment)
    print(f"All well after {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
