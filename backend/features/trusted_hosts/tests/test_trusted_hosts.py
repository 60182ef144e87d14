"""A Host header that is not ours is refused in the error shape."""

from collections.abc import Callable

import httpx2
import pytest
from fastapi import FastAPI

from backend.core.config import Settings
from backend.features.trusted_hosts import TrustedHostsSettings
from backend.testing import new_client


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "evillocalhost", "", "[::2]:80"])
async def test_a_foreign_host_is_refused(client: httpx2.AsyncClient, host: str) -> None:
    answer = await client.get("/openapi.json", headers={"Host": host})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "untrusted_host"


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "localhost:1", "127.0.0.1", "[::1]:8000"])
async def test_our_own_are_served_whatever_the_port(client: httpx2.AsyncClient, host: str) -> None:
    assert (await client.get("/openapi.json", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    ("allowed", "host", "status"),
    [
        ("*.example.com", "api.example.com", 200),
        ("*.example.com", "example.com", 400),
        ("*.example.com", "badexample.com", 400),
        ("*", "anything.at.all", 200),
    ],
)
async def test_wildcards(make_app: Callable[..., FastAPI], allowed: str, host: str, status: int) -> None:
    async with new_client(make_app(TRUSTED_HOSTS__ALLOWED=allowed)) as client:
        assert (await client.get("/openapi.json", headers={"Host": host})).status_code == status


def test_any_host_is_unfit_for_production(environment: Callable[..., None]) -> None:
    environment(TRUSTED_HOSTS__ALLOWED="*")
    assert "TRUSTED_HOSTS__ALLOWED" in TrustedHostsSettings().offences(Settings())[0]
    environment(TRUSTED_HOSTS__ALLOWED="example.com")
    assert TrustedHostsSettings().offences(Settings()) == []


async def test_exempt_paths_are_answered_whatever_the_host(make_app: Callable[..., FastAPI]) -> None:
    async with new_client(make_app(TRUSTED_HOSTS__EXEMPT_PATHS="/openapi.json")) as client:
        assert (await client.get("/openapi.json", headers={"Host": "10.0.0.7:8000"})).status_code == 200
        assert (await client.get("/elsewhere", headers={"Host": "10.0.0.7:8000"})).status_code == 400
