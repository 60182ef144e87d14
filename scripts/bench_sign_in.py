"""How other requests fare while many people sign in, and whether the time of a refusal tells who has an account.

A real server on 127.0.0.1, on SQLite or on the DATABASE_URL that is set, for a minute or two. The storm comes from a
process of its own: its work shall not delay the client that measures. Only what is printed comes of it.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median, quantiles

import httpx2

from backend.features import FEATURES
from scripts.one_core import ROOT, serving

SIGN_INS = 50  # at once
SECONDS = 12.0  # of each measurement
EVERY = 0.02  # seconds between two questions for /health
TRIES = 200  # of each kind of refusal
LONGEST = 120.0  # seconds for all of them
PERSON = {"email": "storm@example.com", "password": "many of us want to enter"}
TOKEN = "/api/v1/auth/token"  # noqa: S105


async def _health(base: str, seconds: float) -> list[float]:
    """Milliseconds of each answer, asked for at a steady rate on one connection."""
    found, until = [], time.monotonic() + seconds
    async with httpx2.AsyncClient(base_url=base, timeout=30) as client:
        (await client.get("/health")).raise_for_status()
        due = time.monotonic()
        while due < until:
            await asyncio.sleep(due - time.monotonic())
            began = time.perf_counter()
            (await client.get("/health")).raise_for_status()
            found.append((time.perf_counter() - began) * 1000)
            due = max(due + EVERY, time.monotonic())
    return found


async def _storm(base: str) -> None:
    """Sign in again and again, until this process is ended; how many did goes to stdout."""
    form = {"username": PERSON["email"], "password": PERSON["password"]}

    async def one() -> None:
        async with httpx2.AsyncClient(base_url=base, timeout=120) as client:
            while True:
                (await client.post(TOKEN, data=form)).raise_for_status()
                sys.stdout.write(".")
                sys.stdout.flush()

    await asyncio.gather(*(one() for _ in range(SIGN_INS)))


@contextmanager
def _storming(base: str) -> Iterator[subprocess.Popen[bytes]]:
    storm = [sys.executable, "-m", "scripts.bench_sign_in", "--storm", base]
    process = subprocess.Popen(storm, cwd=ROOT, stdout=subprocess.PIPE)
    try:
        time.sleep(3)  # started, and every connection has its sign-in under way
        yield process
    finally:
        process.kill()


def _report(name: str, found: list[float]) -> float:
    p99 = quantiles(found, n=100)[98]
    print(f"/health {name:22} p50 {median(found):7.2f} ms   p99 {p99:7.2f} ms   ({len(found)} answers)")
    return p99


def measure_storm(base: str) -> None:
    """How much slower the slowest hundredth of /health gets."""
    idle = _report("idle", asyncio.run(_health(base, SECONDS)))
    with _storming(base) as storm:
        busy = _report(f"under {SIGN_INS} sign-ins at once", asyncio.run(_health(base, SECONDS)))
        if storm.poll() is not None:
            sys.exit("the storm ended early: see above")
    done = len(storm.communicate()[0])
    print(
        f"ratio of the p99s: {busy / idle:.2f} (target: at most 5), with {done / (SECONDS + 3):.1f} sign-ins a second\n"
    )


def measure_refusals(base: str) -> None:
    """Whether a wrong password takes another time than an unknown address; by turns: both meet the same noise."""
    took: dict[str, list[float]] = {PERSON["email"]: [], "nobody@example.com": []}
    until = float("inf")
    with httpx2.Client(base_url=base, timeout=120) as client:
        for turn in range(TRIES + 1):
            for email, times in took.items():
                began = time.perf_counter()
                answer = client.post(TOKEN, data={"username": email, "password": "a wrong password"})
                if answer.status_code != 401:
                    sys.exit(f"unexpected answer: {answer.status_code}")
                if turn:  # the first of each waits for what is left of the storm, and does what is done once
                    times.append((time.perf_counter() - began) * 1000)
                else:
                    until = time.monotonic() + LONGEST
            if time.monotonic() > until:
                break
    known, unknown = (median(times) for times in took.values())
    print(f"wrong password {known:.2f} ms, unknown address {unknown:.2f} ms (medians of {len(times)} each)")
    print(f"difference: {abs(known - unknown) / known:.1%} (target: at most 5%)")


def main() -> None:
    if sys.argv[1:2] == ["--storm"]:
        asyncio.run(_storm(sys.argv[2]))
        return
    # Fifty at once from one address are what the lockout is there to stop.
    os.environ["FEATURES_OFF"] = ",".join({"lockout", "rate_limits"} & set(FEATURES))
    with tempfile.TemporaryDirectory(prefix="bench-sign-in-") as folder:
        database = os.environ.get("DATABASE_URL") or f"sqlite:///{folder}/bench.db"
        with serving(database) as (base, _process):
            httpx2.post(f"{base}/api/v1/auth/signup", json=PERSON, timeout=30)  # 409: from an earlier run
            measure_storm(base)
            measure_refusals(base)


if __name__ == "__main__":
    main()
