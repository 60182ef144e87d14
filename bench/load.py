"""Load from another core: wrk asks as fast as it is answered, on 32 connections."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import NamedTuple
from urllib.parse import urlsplit

from bench.servers import LOAD_CORE, Server, on_core
from scripts.one_core import ROOT

CONNECTIONS = 32
SHORTLY = 2.0  # seconds of a run among many
REPORT = Path(__file__).parent / "report.lua"


@dataclass(frozen=True)
class Ask:
    """A request to repeat."""

    path: str
    method: str = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: str = ""

    def script(self) -> str:
        """What wrk reads: its own language is Lua, which quotes strings as JSON does."""
        lines = [f"wrk.method = {json.dumps(self.method)}"]
        lines += [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in self.headers]
        lines += [f"wrk.body = {json.dumps(self.body)}"] if self.body else []
        return "\n".join([*lines, REPORT.read_text()])


class Found(NamedTuple):
    rate: float  # answers a second
    p50: float  # milliseconds
    p99: float
    cpu: float  # µs of the server's core for each answer


class Tail(NamedTuple):
    p50: float  # milliseconds
    p99: float

    @property
    def times(self) -> float:
        return self.p99 / self.p50


def wrk() -> str:
    if not (program := shutil.which("wrk")):
        sys.exit("wrk is missing: ./scripts/install-programs installs it on Debian and Ubuntu")
    return program


def load(server: Server, ask: Ask, seconds: float) -> Found:
    """Ask for so long, or for longer where that is too short for a single answer; all have to be good ones."""
    for whole in (max(1, round(seconds)), max(10, round(seconds * 4))):  # whole seconds are all that wrk knows
        before = server.cpu()
        found = _wrk(server, ask, whole)
        if found["refused"] or found["broken"]:
            sys.exit(f"{ask.method} {ask.path}: not every answer was good: {found}")
        if found["requests"]:
            used = server.cpu() - before
            return Found(
                found["requests"] / found["seconds"], found["p50"], found["p99"], used / found["requests"] * 1e6
            )
    sys.exit(f"{ask.method} {ask.path}: no answer in {whole} seconds")


def _wrk(server: Server, ask: Ask, seconds: int) -> dict[str, float]:
    command = [wrk(), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", server.base + ask.path, "-s"]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script, on_core(LOAD_CORE):
        script.write(ask.script())
        script.flush()
        done = subprocess.run([*command, script.name], capture_output=True, text=True, timeout=seconds + 60, check=True)
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def typical(runs: Iterable[Found]) -> Found:
    """The median of each figure."""
    return Found(*map(median, zip(*runs, strict=True)))


def ratio(these: Iterable[float], those: Iterable[float]) -> float:
    """The median of those of each turn: a slow minute has both."""
    return median(this / that for this, that in zip(these, those, strict=True))


def steady(server: Server, ask: Ask, rate: float, seconds: float) -> Tail:
    """What a process on the other core sees."""
    url = urlsplit(server.base)
    head = "".join(f"{name}: {value}\r\n" for name, value in ask.headers)
    request = f"{ask.method} {ask.path} HTTP/1.1\r\nHost: {url.netloc}\r\n{head}Content-Length: {len(ask.body)}\r\n\r\n"
    arguments = [url.hostname, url.port, request + ask.body, CONNECTIONS, rate, seconds]
    with on_core(LOAD_CORE):
        command = [sys.executable, "-m", "bench.steady", json.dumps(arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds * 5 + 60, check=False)
    if done.returncode:
        sys.exit(f"{ask.method} {ask.path} at {rate:.0f} requests/s: {done.stderr}")
    return Tail(*json.loads(done.stdout))
