"""Keys in real processes: a stop loses no use, and a revocation reaches the others in time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest
from alembic import command

from backend.testing import PASSWORD, run_alembic, running_server, temporary_database

pytestmark = pytest.mark.slow

KEYS = "/api/v1/api-keys"
ME = "/api/v1/auth/me"
ADA = {"email": "ada@example.com", "password": PASSWORD}


@pytest.fixture
def url() -> Iterator[str]:
    with temporary_database("sqlite") as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        yield url


@contextmanager
def signed_in(base: str) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=base) as client:
        client.post("/api/v1/auth/signup", json=ADA)
        form = {"username": ADA["email"], "password": PASSWORD}
        token = client.post("/api/v1/auth/token", data=form).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield client


def call(base: str, key: str) -> int:
    return httpx2.get(base + ME, headers={"X-API-Key": key}).status_code


def test_a_graceful_stop_stores_the_last_uses(url: str) -> None:
    with running_server(DATABASE_URL=url, API_KEYS__STORE_USE_SECONDS="3600") as base, signed_in(base) as ada:
        key = ada.post(KEYS, json={"name": "Import", "scopes": []}).json()
        assert call(base, key["key"]) == 200
        assert ada.get(f"{KEYS}/{key['id']}").json()["last_used_at"] is None
    with running_server(DATABASE_URL=url) as base, signed_in(base) as ada:
        stored = ada.get(f"{KEYS}/{key['id']}").json()
        assert stored["last_used_at"] >= stored["created_at"]
        assert stored["last_used_address"] == "127.0.0.1"


def test_a_running_process_stores_them_now_and_then(url: str) -> None:
    with running_server(DATABASE_URL=url, API_KEYS__STORE_USE_SECONDS="0.2") as base, signed_in(base) as ada:
        key = ada.post(KEYS, json={"name": "Import", "scopes": []}).json()
        assert call(base, key["key"]) == 200
        deadline = time.monotonic() + 10
        while not ada.get(f"{KEYS}/{key['id']}").json()["last_used_at"]:
            assert time.monotonic() < deadline


def test_a_revoked_key_is_refused_here_at_once_and_elsewhere_within_the_bound(url: str) -> None:
    bound = 2.0
    variables = {"DATABASE_URL": url, "SECURITY__PRINCIPAL_CACHE_SECONDS": str(bound)}
    with running_server(**variables) as here, running_server(**variables) as elsewhere, signed_in(here) as ada:
        key = ada.post(KEYS, json={"name": "Import", "scopes": []}).json()
        assert [call(here, key["key"]), call(elsewhere, key["key"])] == [200, 200]
        assert ada.delete(f"{KEYS}/{key['id']}").status_code == 204
        revoked = time.monotonic()
        assert call(here, key["key"]) == 401
        asked = revoked
        while call(elsewhere, key["key"]) == 200:
            assert asked < revoked + bound
            asked = time.monotonic()
