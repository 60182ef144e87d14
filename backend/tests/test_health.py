"""The kernel's health report: probes run together, bounded in time, and not more than once a second."""

import asyncio

import pytest
from fastapi import FastAPI

from backend.core import health
from backend.core.health import Health


async def works(app: FastAPI) -> None:
    await asyncio.sleep(0)


async def fails(app: FastAPI) -> None:
    raise ConnectionError("host db-1.internal refused")


async def test_what_is_required_decides() -> None:
    app = FastAPI()
    assert (await Health(app, {"database": works, "mail": works}).report()).status == "ok"
    assert (await Health(app, {"database": works, "mail": fails}).report()).status == "degraded"
    assert (await Health(app, {"database": fails, "mail": works}).report()).status == "down"


async def test_a_report_names_the_kind_of_error_not_its_text() -> None:
    (component,) = (await Health(FastAPI(), {"mail": fails}).report()).components
    assert (component.status, component.error) == ("down", "ConnectionError")


async def test_a_probe_that_hangs_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hangs(app: FastAPI) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(health, "PROBE_TIMEOUT", 0.05)
    (component,) = (await Health(FastAPI(), {"mail": hangs}).report()).components
    assert component.error == "no answer within 0.05 s"


async def test_many_callers_cost_one_look() -> None:
    looks = 0

    async def counted(app: FastAPI) -> None:
        nonlocal looks
        looks += 1
        await asyncio.sleep(0.01)

    subject = Health(FastAPI(), {"mail": counted})
    await asyncio.gather(*(subject.report() for _ in range(50)))
    assert looks == 1
    subject._taken -= 2 * health.FRESH
    await subject.report()
    assert looks == 2
