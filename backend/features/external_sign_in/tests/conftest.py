"""Issuers on real ports, and a browser that goes there and back."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from backend.core.events import Event, Handler
from backend.features.external_sign_in.tests.local_issuer import CLIENT_ID, CLIENT_SECRET, Issuer, running_issuer
from backend.testing import free_port


@pytest.fixture(scope="session")
def mock_url() -> Iterator[str]:
    """The base URL of oidc-provider-mock, an issuer that others wrote, in a process of its own."""
    port = free_port()
    command = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 30
    try:
        while True:
            try:
                httpx2.get(f"{url}/.well-known/openid-configuration").raise_for_status()
                break
            except httpx2.HTTPError:
                assert time.monotonic() < deadline, "oidc-provider-mock did not start"
                assert process.poll() is None, "oidc-provider-mock has ended"
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=10)


@pytest.fixture
def mock(mock_url: str, environment: Callable[..., None]) -> str:
    """The app trusts oidc-provider-mock, as `oidc`."""
    trust(environment, mock_url)
    return mock_url


@pytest.fixture
def issuer(environment: Callable[..., None]) -> Iterator[Issuer]:
    """The app trusts an issuer that tests can make lie, as `oidc`."""
    with running_issuer() as running:
        trust(environment, running.url)
        yield running


def trust(environment: Callable[..., None], url: str) -> None:
    environment(
        EXTERNAL_SIGN_IN__OIDC_ISSUER=url,
        EXTERNAL_SIGN_IN__OIDC_CLIENT_ID=CLIENT_ID,
        EXTERNAL_SIGN_IN__OIDC_CLIENT_SECRET=CLIENT_SECRET,
    )


@pytest.fixture
def listen(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Callable[[type[Event], Handler], None]:
    """`listen(SecurityEvent, handler)`: as a feature would, for this test."""

    def add(kind: type[Event], handler: Handler) -> None:
        info: dict[str, Any] = app.state.database.info
        before = info["handlers"]
        monkeypatch.setitem(info, "handlers", {**before, kind: (*before.get(kind, ()), handler)})

    return add
