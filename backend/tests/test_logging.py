"""Logs: JSON where programs read them, secrets masked, uvicorn's lines like ours."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress

import pytest
import structlog

from backend.core import context
from backend.core import logging as our_logging
from backend.core.config import Settings
from backend.core.masking import MASK, without_addresses


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
    assert ours["password"] == ours["access_token"] == ours["Cookie"] == MASK
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("ada@example.com", "a•••@example.com"),
        ("mail to <ada.b+c@mail.example.com>, please.", "mail to <a•••@mail.example.com>, please."),
        ("/users/ada@example.com/keys?q=bob@example.org&x=1", "/users/a•••@example.com/keys?q=b•••@example.org&x=1"),
        ("postgresql://app:hunter2@db:5432/app", "postgresql://app:h•••@db:5432/app"),
        ("päivi@exämple.fi", "p•••@exämple.fi"),
        ("\x1b[35mada@example.com\x1b[0m", "\x1b[35ma•••@example.com\x1b[0m"),
        ("@router.get and a @ b", "@router.get and a @ b"),
    ],
)
def test_addresses_are_masked(text: str, shown: str) -> None:
    assert without_addresses(text) == shown


@pytest.mark.parametrize(
    "text", ["a" * 100_000 + " @", "a@" * 50_000, "@" * 100_000, "\\" * 100_000 + "@", "a." * 50_000]
)
def test_masking_takes_no_longer_for_what_strangers_make_up(text: str) -> None:
    began = time.process_time()
    without_addresses(text + "@x")
    assert time.process_time() - began < 1


@pytest.mark.parametrize("form", ["json", "console"])
def test_nobodys_address_is_in_a_line_whoever_writes_it(
    environment: Callable[..., None], capsys: pytest.CaptureFixture[str], form: str
) -> None:
    environment(LOG__FORMAT=form, LOG__LEVEL="info")
    our_logging.configure(Settings())
    structlog.get_logger().info("hello ada@example.com", to=["ada@example.com"], more={"of": ("x", "ada@example.com")})
    logging.getLogger("uvicorn.error").warning("from %s", "ada@example.com")
    logging.getLogger("sqlalchemy.engine").warning("[generated in 0.1s] %r", ("ada@example.com", 1))
    for log in (structlog.get_logger(), logging.getLogger("uvicorn.error")):
        try:
            raise LookupError("nobody is\nada@example.com")
        except LookupError:
            log.exception("failed")
    written = capsys.readouterr().err
    assert "ada@" not in written
    assert written.count("•••@example.com") >= 6
    if form == "json":
        assert len([json.loads(line) for line in written.splitlines()]) == 5


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
