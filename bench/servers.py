"""Servers to measure: each a process of its own, on one core of its own, all under the same settings of uvicorn."""

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
from sqlalchemy.engine import make_url

from backend.testing import free_port
from scripts.one_core import ROOT, cpu_seconds

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]
SERVER_CORE, LOAD_CORE = CORES[0], CORES[-1]
UVICORN = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--no-server-header", "--log-level", "warning")
STARTING = 120.0  # seconds that a server may take on a busy machine
STOPPING = 20.0

# The app as somebody would run it who takes all of it. A load from one address is what the limits are there to stop.
PRODUCTION = {
    "ENVIRONMENT": "production",
    "ENV_FILE": "",
    "API__PUBLIC_URL": "https://bench.example.com",
    "MAIL__BACKEND": "smtp",  # where nobody listens: one mail waits, and is given up
    "MAIL__RETRY_SECONDS": "1",
    "USERS__ACCESS_TOKEN_MINUTES": "120",
}


@contextmanager
def on_core(*cores: int) -> Iterator[None]:
    """What is started here stays on these cores."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@dataclass(frozen=True)
class Server:
    base: str
    pid: int
    started_in: float  # seconds until it was ready

    def _processes(self) -> list[int]:
        """This process and those it started."""
        found = [self.pid]
        for one in found:
            for thread in Path(f"/proc/{one}/task").glob("*/children"):
                found += [int(child) for child in thread.read_text().split()]
        return found

    def cpu(self) -> float:
        """Seconds of a core used so far."""
        return sum(cpu_seconds(one) for one in self._processes())

    def answers(self, path: str, headers: tuple[tuple[str, str], ...] = ()) -> bool:
        """Whether there is anything at this path."""
        return _status(self.base + path, headers) != 404

    def memory(self) -> float:
        """MiB resident."""
        pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in self._processes())
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@contextmanager
def _running(
    command: list[str], port: int, ready: str, environment: Mapping[str, str], *cores: int
) -> Iterator[Server]:
    base = f"http://127.0.0.1:{port}"
    began = time.monotonic()
    with tempfile.TemporaryFile() as log:
        with on_core(*cores):
            process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env=os.environ | environment, stdout=log, stderr=log
            )
        try:
            while _status(base + ready) not in {200, 404}:  # 404: the feature that says so is off
                if process.poll() is not None or time.monotonic() > began + STARTING:
                    sys.exit(f"{' '.join(command)} did not start: {os.pread(log.fileno(), 4000, 0).decode()}")
                time.sleep(0.02)
            yield Server(base, process.pid, time.monotonic() - began)
        finally:
            process.terminate()
            try:
                process.wait(timeout=STOPPING)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _status(url: str, headers: tuple[tuple[str, str], ...] = ()) -> int:
    try:
        return httpx2.get(url, headers=headers, timeout=5).status_code
    except httpx2.TransportError:
        return 503


def plain_url(database: str) -> str:
    """As asyncpg reads it."""
    return make_url(database).set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def reference(module: str, ready: str, database: str, workers: int = 1) -> Iterator[Server]:
    """One of the servers that the app is compared with."""
    port = free_port()
    command = ["-m", "uvicorn", f"bench.{module}:app", "--port", str(port), "--workers", str(workers), *UVICORN]
    with _running(command, port, ready, {"BENCH_DATABASE_URL": plain_url(database)}, *CORES[:workers]) as server:
        yield server


def production(database: str, redis: str, settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of the app."""
    return {
        **PRODUCTION,
        "SECURITY__SECRET_KEY": secrets.token_urlsafe(48),
        "DATABASE_URL": database,
        "REDIS_URL": redis,
        **settings,
    }


@contextmanager
def the_app(environment: Mapping[str, str], **more: str) -> Iterator[Server]:
    """The app: `the_app(environment, SERVER__WORKERS="2")` changes settings of it."""
    port = free_port()
    environment = {**environment, "PORT": str(port), **more}
    cores = CORES[: int(environment.get("SERVER__WORKERS", "1"))]
    with _running(["-m", "backend", "serve"], port, "/ready", environment, *cores) as server:
        yield server
