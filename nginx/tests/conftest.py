"""Fixtures: a real nginx with our rendered configuration, in front of real processes of the app."""

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import httpx2
import pytest
from alembic import command
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import create_engine
from sqlmodel import Session

from backend.core.db import sync_url
from backend.features import FEATURES
from backend.features.users.models import User
from backend.testing import (
    PASSWORD,
    PASSWORD_HASH,
    ROOT,
    available,
    free_port,
    run_alembic,
    temporary_database,
    wait_until_ready,
)

ADMIN = "admin@example.com"
NOBODY = 65534  # nginx runs without rights, as in its container
T = TypeVar("T")
SECURITY_HEADERS = (
    "Content-Security-Policy",
    "X-Content-Type-Options",
    "X-Frame-Options",
    "Referrer-Policy",
    "Cross-Origin-Opener-Policy",
    "Cross-Origin-Resource-Policy",
    "Permissions-Policy",
)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "nginx: runs a real nginx; REQUIRE_NGINX=1 fails where there is none")


def needs(*features: str) -> pytest.MarkDecorator:
    """Skips a test whose subject is a feature that was taken out."""
    missing = [name for name in features if name not in FEATURES]
    return pytest.mark.skipif(bool(missing), reason=f"without {', '.join(missing)}")


def log_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a log; others (a traceback's) are left out."""
    found = []
    for line in path.read_text().splitlines():
        with suppress(ValueError):
            found.append(json.loads(line))
    return found


def eventually(find: Callable[[], T | None], *, within: float = 10) -> T:
    """What `find` returns once it returns something; AssertionError after `within` seconds."""
    deadline = time.monotonic() + within
    while not (found := find()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.05)
    return found


# --- the app -------------------------------------------------------------------------------------------------------


@dataclass
class App:
    """One process of the app on a port of its own, which it keeps when it is started again."""

    variables: dict[str, str]
    log: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = os.environ | self.variables | {"PORT": str(self.port), "LOG__FORMAT": "json"}
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "backend", "serve"]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=log)
        wait_until_ready(f"http://{self.address}", self.process)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """The exit code after that signal."""
        assert self.process
        self.process.send_signal(number)
        return self.process.wait(timeout=45)

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.stop(signal.SIGKILL)

    def requests(self) -> list[dict[str, Any]]:
        """What it logged about requests."""
        return [line for line in log_lines(self.log) if line.get("event") == "request"]


@contextmanager
def running_apps(count: int, database: str, folder: Path, **variables: str) -> Iterator[list[App]]:
    """So many processes of the app on one migrated database of that kind, which has the administrator `ADMIN`."""
    with ExitStack() as stack:
        url = stack.enter_context(temporary_database(database))
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        engine = create_engine(sync_url(url))
        with Session(engine) as session:
            session.add(User(email=ADMIN, role="admin", password_hash=PASSWORD_HASH))
            session.commit()
        engine.dispose()
        apps = []
        for number in range(count):
            app = App({"DATABASE_URL": url} | variables, folder / f"app{number}.log")
            stack.callback(app.kill)
            app.start()
            apps.append(app)
        yield apps


@pytest.fixture(scope="session")
def database_kind(request: pytest.FixtureRequest) -> str:
    """PostgreSQL where it is among the databases of this run: it takes several processes that write."""
    names = available(request.config)
    return "postgresql" if "postgresql" in names else names[0]


@pytest.fixture(scope="session")
def apps(database_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[App]]:
    """Two processes of the app."""
    with running_apps(2, database_kind, tmp_path_factory.mktemp("apps")) as apps:
        yield apps


# --- nginx ---------------------------------------------------------------------------------------------------------


@dataclass
class Nginx:
    """A running nginx: its two addresses, the folder it writes into, what its callers trust."""

    http: str
    https: str
    folder: Path
    trust: ssl.SSLContext

    def client(self, *, source: str = "127.0.0.1", **options: Any) -> httpx2.Client:
        """A caller from that address; http2=True for HTTP/2."""
        http2 = options.pop("http2", False)
        transport = httpx2.HTTPTransport(verify=self.trust, http2=http2, local_address=source)
        return httpx2.Client(transport=transport, base_url=self.https, timeout=20, **options)

    def requests(self, request_id: str) -> list[dict[str, Any]]:
        """What it logged about the request with that id."""
        return [line for line in log_lines(self.folder / "access.log") if line["request_id"] == request_id]

    def logged(self, request_id: str) -> dict[str, Any]:
        """The one line about the request with that id; nginx writes it after the answer."""
        lines = eventually(lambda: self.requests(request_id))
        assert len(lines) == 1, lines
        return lines[0]


@pytest.fixture(scope="session")
def nginx_program() -> str:
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None and os.environ.get("REQUIRE_NGINX"):
        pytest.fail("REQUIRE_NGINX is set and there is no nginx")
    if program is None:
        pytest.skip("no nginx on this machine: apt-get install nginx-light gettext-base")
    return program


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """A self-signed certificate for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    days = now, now + timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), *days)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    signed = builder.sign(key, hashes.SHA256())
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return signed.public_bytes(encoding).decode(), private


StartNginx = Callable[..., Nginx]


@contextmanager
def _running_nginx(
    program: str, certificate: tuple[str, bytes], upstreams: list[str], **variables: str
) -> Iterator[Nginx]:
    folder = Path(tempfile.mkdtemp(prefix="mainstay-nginx-"))
    public, private = certificate
    (folder / "tls.crt").write_text(public)
    (folder / "tls.key").write_bytes(private)
    (folder / "access.log").touch()
    http, https = free_port(), free_port()
    own = {
        "RUN_DIR": str(folder),
        "HTTP_PORT": str(http),
        "HTTPS_PORT": str(https),
        "PUBLIC_HTTPS_PORT": str(https),
        "TLS_CERTIFICATE": f"{folder}/tls.crt",
        "TLS_KEY": f"{folder}/tls.key",
        "UPSTREAMS": " ".join(upstreams),
    }
    subprocess.run([ROOT / "nginx/render", program], env=os.environ | own | variables, check=True)
    user = NOBODY if os.geteuid() == 0 else None
    if user:
        for path in (folder, *folder.iterdir()):
            os.chown(path, user, user)
    arguments = [program, "-e", "stderr", "-c", f"{folder}/nginx.conf", "-g", "daemon off;"]
    with (folder / "access.log").open("ab") as access, (folder / "error.log").open("wb") as errors:
        process = subprocess.Popen(
            arguments, stdout=access, stderr=errors, user=user, group=user, extra_groups=None if user is None else []
        )
    try:
        eventually(lambda: process.poll() is not None or _listens(https))
        assert process.poll() is None, (folder / "error.log").read_text()
        trust = ssl.create_default_context(cafile=f"{folder}/tls.crt")
        yield Nginx(f"http://localhost:{http}", f"https://localhost:{https}", folder, trust)
        assert process.poll() is None, (folder / "error.log").read_text()
    finally:
        process.terminate()
        process.wait(timeout=10)
        shutil.rmtree(folder)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def start_nginx(nginx_program: str, certificate: tuple[str, bytes]) -> Iterator[StartNginx]:
    """`start_nginx(["127.0.0.1:8000"], RATE="1r/s")`: nginx in front of these, with these settings, for one test."""
    with ExitStack() as stack:
        yield lambda upstreams, **variables: stack.enter_context(
            _running_nginx(nginx_program, certificate, upstreams, **variables)
        )


@pytest.fixture(scope="session")
def nginx(nginx_program: str, certificate: tuple[str, bytes], apps: list[App]) -> Iterator[Nginx]:
    """Nginx with its default settings in front of two processes of the app."""
    with _running_nginx(nginx_program, certificate, [app.address for app in apps]) as nginx:
        yield nginx


@pytest.fixture(scope="session")
def authorization(nginx: Nginx) -> dict[str, str]:
    """The header of the administrator, signed in through nginx."""
    with nginx.client() as client:
        answer = client.post("/api/v1/auth/token", data={"username": ADMIN, "password": PASSWORD})
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}
