"""Where the time of a request goes: the app in this process, asked without a network, and looked at each millisecond.

A profiler that counts calls, such as cProfile, loses its way between SQLAlchemy's greenlets and makes small functions
look dear. Samples of the processor's time do neither.
"""

import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import Any

import httpx2
import uvloop
from fastapi import FastAPI
from greenlet import getcurrent, greenlet
from starlette.types import Message

from backend.main import served_app
from bench.cases import prepare
from bench.load import Ask
from scripts.one_core import ROOT

EVERY = 0.001  # seconds of processor time between two looks
LINES = 30
OURS = f"{ROOT}/backend/"


class Sampler:
    """Which functions were at work, and which of them had called the others."""

    def __init__(self) -> None:
        self.own: Counter[CodeType] = Counter()
        self.total: Counter[CodeType] = Counter()
        self.samples = 0

    def __call__(self, _signal: int, frame: FrameType | None) -> None:
        stack = list(_stack(frame))
        self.samples += 1
        self.own.update(stack[:1])
        self.total.update(set(stack))

    @contextmanager
    def sampling(self) -> Iterator[None]:
        signal.signal(signal.SIGPROF, self)
        signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)


def _stack(frame: FrameType | None) -> Iterator[CodeType]:
    """From what is at work out to the app, through the greenlets in which SQLAlchemy runs."""
    inner: greenlet | None = getcurrent()
    while frame is not None and frame.f_code.co_filename != __file__:
        yield frame.f_code
        frame = frame.f_back
        if frame is None and inner is not None and (inner := inner.parent) is not None:
            frame = inner.gr_frame


def _described(code: CodeType) -> str:
    path = code.co_filename.rpartition("site-packages/")[2].removeprefix(f"{ROOT}/")
    return f"{getattr(code, 'co_qualname', code.co_name)}  {path}:{code.co_firstlineno}"


def _scope(ask: Ask) -> dict[str, Any]:
    """What a server would make of the request."""
    path, _, query = ask.path.partition("?")
    headers = [("host", "localhost"), ("content-length", str(len(ask.body))), *ask.headers]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": ask.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "client": ("127.0.0.1", 1234),
        "server": ("127.0.0.1", 8000),
    }


async def _repeat(app: FastAPI, ask: Ask, seconds: float) -> tuple[int, float]:
    """How many requests, and the µs of a core that each took."""

    async def receive() -> Message:
        return {"type": "http.request", "body": ask.body.encode(), "more_body": False}

    async def send(message: Message) -> None:
        if not 200 <= message.get("status", 200) < 300:
            raise SystemExit(f"{ask.method} {ask.path}: {message}")

    count, until, used = 0, time.monotonic() + seconds, time.process_time()
    while time.monotonic() < until:
        await app(_scope(ask), receive, send)
        count += 1
    return count, (time.process_time() - used) / count * 1e6


async def _profile(name: str, seconds: float) -> None:
    app = served_app()
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as client:
            ask = (await prepare(client))[name]
        await _repeat(app, ask, 1)  # what is slow only once
        count, took = await _repeat(app, ask, seconds)
        print(f"{name}: {took:.0f} µs of a core for each request, without the server ({count} requests)\n")
        sampler = Sampler()
        with sampler.sampling():
            count, took = await _repeat(app, ask, seconds * 2)
    ours = Counter({code: samples for code, samples in sampler.total.items() if code.co_filename.startswith(OURS)})
    tables = {
        "by itself": sampler.own,
        "with what it calls, our code": ours,
        "with what it calls, all code": sampler.total,
    }
    for title, counter in tables.items():
        print(f"µs of each request, a function {title} ({sampler.samples} samples)")
        for code, samples in counter.most_common(LINES):
            print(f"{samples / sampler.samples * took:8.1f}  {_described(code)}")
        print()


def profile(name: str, environment: Mapping[str, str], seconds: float) -> None:
    """Print the functions that take the most time in one case."""
    os.environ |= environment
    with tempfile.TemporaryFile() as log:  # as many lines as requests
        os.dup2(log.fileno(), sys.stderr.fileno())
        uvloop.run(_profile(name, seconds))
