"""What one process on one core serves: the real app on a real server, loaded for some seconds per kind of request."""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

ROOT = Path(__file__).resolve().parent.parent
CONNECTIONS = 8  # open at once, each with one request under way: enough to keep one core busy
PERSON = {"email": "load@example.com", "password": "many requests a second"}
ITEM = '{"name":"Lamp","description":"Oak, with a linen shade","price":"19.99","stock":3}'


def cpu_seconds(process: int) -> float:
    """Seconds of a core that the process has used; where there is no /proc, the clock: a busy process uses it all."""
    stat = Path(f"/proc/{process}/stat")
    if not stat.exists():
        return time.monotonic()
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # proc(5): utime and stime


@contextmanager
def serving(database: str) -> Iterator[tuple[str, int]]:
    """The app in one process of its own: its URL and process id."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = os.environ | {"DATABASE_URL": database, "PORT": str(port), "ENV_FILE": "", "LOG__LEVEL": "warning"}
    subprocess.run([sys.executable, "-m", "backend", "migrate"], cwd=ROOT, env=environment, check=True, timeout=120)
    process = subprocess.Popen([sys.executable, "-m", "backend", "serve"], cwd=ROOT, env=environment)
    try:
        base = f"http://127.0.0.1:{port}"
        for _ in range(600):
            if process.poll() is not None or _answers(base):
                break
            time.sleep(0.1)
        yield base, process.pid
    finally:
        process.terminate()
        process.wait(timeout=40)


def _answers(base: str) -> bool:
    try:
        return httpx2.get(f"{base}/ready").status_code == 200
    except httpx2.TransportError:
        return False


async def _connection(port: int, request: bytes, until: float) -> int:
    """Ask again and again on one connection; how many answers came. A plain reader costs less than what it asks for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answers = 0
    while time.monotonic() < until:
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 2"):
            sys.exit(f"unexpected answer: {head.decode()}")
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        answers += 1
    writer.close()
    await writer.wait_closed()
    return answers


async def _load(port: int, request: bytes, seconds: float) -> int:
    until = time.monotonic() + seconds
    return sum(await asyncio.gather(*(_connection(port, request, until) for _ in range(CONNECTIONS))))


def _requests(base: str) -> dict[str, bytes]:
    """The bytes of a request of each kind, from somebody who has just signed up and put 50 items up for sale."""
    with httpx2.Client(base_url=f"{base}/api/v1", timeout=30) as client:
        client.post("/auth/signup", json=PERSON).raise_for_status()
        form = {"username": PERSON["email"], "password": PERSON["password"]}
        token = client.post("/auth/token", data=form).raise_for_status().json()["access_token"]
        client.headers |= {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        for _ in range(50):
            item = client.post("/store/items", content=ITEM).raise_for_status()
    kinds = {
        "health": ("GET", "/live", ""),
        "read": ("GET", item.headers["Location"], ""),
        "list": ("GET", "/api/v1/store/items?limit=50", ""),
        "create": ("POST", "/api/v1/store/items", ITEM),
    }
    heads = f"Host: localhost\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\n"
    heads += "Cache-Control: no-store\r\n"  # planned with what the database has to answer
    return {
        name: f"{method} {path} HTTP/1.1\r\n{heads}Content-Length: {len(body)}\r\n\r\n{body}".encode()
        for name, (method, path, body) in kinds.items()
    }


def measure(database: str | None, seconds: float) -> dict[str, float]:
    """Milliseconds of a core that each kind of request takes, server side; printed with what came of it."""
    found = {}
    with (
        tempfile.TemporaryDirectory(prefix="one-core-") as folder,
        serving(database or f"sqlite:///{folder}/load.db") as (base, process),
    ):
        port = int(base.rpartition(":")[2])
        for name, request in _requests(base).items():
            asyncio.run(_load(port, request, 0.5))  # what is slow only once
            cpu, began = cpu_seconds(process), time.monotonic()
            answers = asyncio.run(_load(port, request, seconds))
            used, passed = cpu_seconds(process) - cpu, time.monotonic() - began
            found[name] = round(used / answers * 1000, 2)
            print(f"{name:8} {answers / passed:7.0f} requests/s  {found[name]:6.2f} ms of a core each", end="  ")
            print(f"({used / passed:.0%} of one core, {CONNECTIONS} connections)")
    print()
    return found
