"""SIGTERM: the app drains, then stops in order."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from backend.core.stopping import Stopping
from backend.testing import PASSWORD, ROOT, free_port, wait_until_ready

DRAIN = 2.0


@contextmanager
def server(**variables: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    port = free_port()
    environment = os.environ | {"PORT": str(port), "DATABASE_URL": "sqlite://", **variables}
    with subprocess.Popen([sys.executable, "-m", "backend", "api"], cwd=ROOT, env=environment) as process:
        try:
            wait_until_ready(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()


@pytest.mark.slow
def test_a_stopping_server_drains_first_and_ends_in_order() -> None:
    with server(SERVER__DRAIN_SECONDS=str(DRAIN)) as (base, process), httpx2.Client(base_url=base) as client:
        assert "connection" not in client.get("/ready").headers
        started = time.monotonic()
        process.send_signal(signal.SIGTERM)
        for _ in range(50):
            ready = client.get("/ready")
            if ready.status_code == 503:
                break
            time.sleep(0.02)
        assert (ready.status_code, ready.headers["connection"]) == (503, "close")
        live = client.get("/live")
        assert (live.status_code, live.headers["connection"]) == (200, "close")
        assert process.wait(10) == 0
        assert time.monotonic() - started >= DRAIN


@pytest.mark.slow
def test_without_a_drain_and_at_a_second_signal_the_server_stops_at_once() -> None:
    with server() as (_, process):
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    with server(SERVER__DRAIN_SECONDS="300") as (base, process):
        process.send_signal(signal.SIGTERM)
        for _ in range(50):
            if httpx2.get(f"{base}/ready").status_code == 503:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_open_stream_does_not_hold_up_the_stop(number: signal.Signals) -> None:
    pytest.importorskip("backend.features.realtime")
    with server() as (base, process):
        person = {"email": "ada@example.com", "password": PASSWORD}
        httpx2.post(f"{base}/api/v1/auth/signup", json=person)
        form = {"username": person["email"], "password": PASSWORD}
        token = httpx2.post(f"{base}/api/v1/auth/token", data=form).json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        with httpx2.stream("GET", f"{base}/api/v2/sse/stream", headers=headers) as stream:
            lines = stream.iter_lines()
            assert next(lines) == "event: tick"
            process.send_signal(number)
            assert "event: goodbye" in list(lines)
        process.wait(10)


@pytest.mark.slow
def test_several_workers_stop_in_order() -> None:
    with server(SERVER__WORKERS="2", SERVER__DRAIN_SECONDS="1") as (_, process):
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 0


async def test_waiting_ends_with_the_time_or_with_the_stop() -> None:
    stopping = Stopping(drain=300)
    assert await stopping.wait(0.01) is False
    received = []
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    interrupted = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with stopping.on_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            assert await asyncio.wait_for(stopping.wait(60), 5) is True
            assert not received
            os.kill(os.getpid(), signal.SIGTERM)
            for _ in range(100):
                await asyncio.sleep(0.01)
                if received:
                    break
        assert received == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupted)
