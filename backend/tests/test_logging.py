"""Logs: JSON where programs read them, secrets masked, uvicorn's lines like ours."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress

import pytest
import structlog

from backend.core import context
from backend.core import logging as our_logging
from backend.core.config import Settings


@pytest.fixture(autouse=True)
def restore() -> Iterator[None]:
    yield
    our_logging.configure(Settings(log={"level": "warning"}))


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_json_has_what_a_search_needs(environment: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    environment(LOG__FORMAT="json")
    our_logging.configure(Settings())
    token = context.request_id.set("r-1")
    structlog.get_logger("shop").info("sold", item=7, password="hunter2", access_token="abc", Cookie="c")
    logging.getLogger("uvicorn.error").warning("from %s", "uvicorn")
    context.request_id.reset(token)
    ours, theirs = lines(capsys)
    assert (ours["event"], ours["item"], ours["level"], ours["logger"], ours["request_id"]) == (
        "sold",
        7,
        "info",
        "shop",
        "r-1",
    )
    assert ours["password"] == ours["access_token"] == ours["Cookie"] == our_logging.MASK
    assert (theirs["event"], theirs["request_id"]) == ("from uvicorn", "r-1")
    assert str(ours["timestamp"]).endswith("Z")


def test_a_traceback_has_no_local_variables(
    environment: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    environment(LOG__FORMAT="json")
    our_logging.configure(Settings())
    password = "hunter2"  # noqa: F841
    try:
        raise LookupError("gone")
    except LookupError:
        structlog.get_logger().exception("failed")
    (line,) = lines(capsys)
    assert "LookupError" in str(line["exception"])
    assert "hunter2" not in str(line).replace('password = "hunter2"', "")


def test_console_and_level(environment: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    environment(LOG__LEVEL="warning")
    our_logging.configure(Settings())
    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud", secret_key="x")
    written = capsys.readouterr().err
    assert "loud" in written
    assert "quiet" not in written
    assert "secret_key=x" not in written


@pytest.mark.parametrize("stderr", ["/dev/full", None])
def test_a_line_that_cannot_be_written_stops_no_work(monkeypatch: pytest.MonkeyPatch, stderr: str | None) -> None:
    our_logging.configure(Settings())
    with open(stderr, "w") if stderr else nullcontext() as file:  # noqa: PTH123  as stderr is opened
        monkeypatch.setattr("sys.stderr", file)
        structlog.get_logger().warning("loud")
        monkeypatch.undo()
        if file:
            with suppress(OSError):  # what is left in its buffer
                file.close()
