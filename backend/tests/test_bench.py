"""./scripts/bench as a real process, for a moment; and the two measures of its own making."""

import asyncio
import os
import re
import shutil
import subprocess
import sys
import time

import asyncpg
import pytest

from backend.features import FEATURES
from backend.testing import ROOT, available, temporary_database
from bench.database import aside, movable
from bench.load import ratio
from bench.servers import LOAD_CORE, plain_url
from bench.statements import counting
from bench.steady import asked_at

asks_the_store = pytest.mark.skipif(not {"health", "items"} <= {*FEATURES}, reason="asks /live and the store")


def bench(*arguments: str) -> str:
    command = [sys.executable, "-m", "bench", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@asks_the_store
@pytest.mark.skipif(not shutil.which("wrk"), reason="needs wrk: ./scripts/install-programs")
def test_it_prints_the_app_beside_its_reference_and_whether_the_target_is_met() -> None:
    printed = bench("--only", "live", "--seconds", "1", "--turns", "1")
    rates = {
        name: int(rate)
        for name, rate in re.findall(r"^(typed|live) +(\d+) +[\d.]+ +[\d.]+ +\d+ +0\.0", printed, re.MULTILINE)
    }
    assert rates.keys() == {"typed", "live"}, printed
    share = rates["live"] / rates["typed"]
    [verdict] = re.findall(r"^([✔✘]) GET /live: ([\d.]+)% of typed \(target: at least 70%\)$", printed, re.MULTILINE)
    assert float(verdict[1]) / 100 == pytest.approx(share, abs=0.01)
    assert (verdict[0] == "✔") == (share >= 0.7)


@pytest.mark.slow
@asks_the_store
def test_the_profile_names_our_functions_and_what_calls_them() -> None:
    printed = bench("--profile", "item", "--seconds", "0.5")
    _alone, ours, everything = printed.split("µs of each request, a function ")[1:]
    assert "read_item  backend/features/items/routes.py" in ours, printed
    assert "FastAPI.__call__" in everything
    assert "FastAPI.__call__" not in ours


async def test_statements_are_counted_on_the_wire(request: pytest.FixtureRequest) -> None:
    if "postgresql" not in available(request.config):
        pytest.skip("needs PostgreSQL")
    with temporary_database("postgresql") as url, counting(url) as (through, proxy):
        connection = await asyncpg.connect(plain_url(through))
        before = proxy.count
        async with connection.transaction():  # BEGIN and COMMIT
            assert await connection.fetchval("SELECT 41 + $1::int", 1) == 42
        await connection.close()
        assert proxy.count - before == 3


@pytest.mark.slow
async def test_a_wait_counts_from_when_the_request_was_due() -> None:
    took = 0.02

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            await asyncio.sleep(took)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    async with await asyncio.start_server(slow, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        # Twice as many as it can answer: the last one is late by half of all the time that it takes.
        found = await asked_at("127.0.0.1", port, b"GET / HTTP/1.1\r\n\r\n", connections=1, rate=100, seconds=0.5)
    assert len(found) == pytest.approx(50, abs=1)
    assert min(found) < 200
    assert max(found) > 400


async def test_a_pause_of_the_client_is_not_the_servers() -> None:
    async def quick(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    async with await asyncio.start_server(quick, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        asking = asked_at("127.0.0.1", port, b"GET / HTTP/1.1\r\n\r\n", connections=20, rate=20, seconds=1)
        asyncio.get_running_loop().call_later(0.475, time.sleep, 0.4)
        found = await asking
    assert len(found) == pytest.approx(20, abs=1)
    assert sum(one > 100 for one in found) <= 1, "of the eight that were due meanwhile, and what was under way"


def test_a_share_is_that_of_each_turn() -> None:
    assert ratio([1, 20, 3], [2, 40, 12]) == 0.5  # the slow second turn has both


async def test_the_database_leaves_the_core_while_tails_are_measured(request: pytest.FixtureRequest) -> None:
    if "postgresql" not in available(request.config):
        pytest.skip("needs PostgreSQL")

    def look(url: str, pid: int) -> tuple[set[int], set[int]]:
        with aside(url):
            meanwhile = os.sched_getaffinity(pid)
        return meanwhile, os.sched_getaffinity(pid)

    with temporary_database("postgresql") as url:
        connection = await asyncpg.connect(plain_url(url))
        if not movable(pid := connection.get_server_pid()):
            pytest.skip("needs a PostgreSQL that we may tell where to run")
        before = os.sched_getaffinity(pid)
        assert await asyncio.to_thread(look, url, pid) == ({LOAD_CORE}, before)
        await connection.close()
