"""Two server processes on one database: what is changed through one holds in the other, within the bound."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from alembic import command
from sqlalchemy import create_engine
from sqlmodel import Session

from backend.core.db import sync_url
from backend.features.users.models import User
from backend.testing import PASSWORD, PASSWORD_HASH, run_alembic, running_server, temporary_database

BOUND = 2.0  # seconds
SLACK = 0.5  # seconds, for the request itself


@pytest.fixture
def two_servers(database_name: str) -> Iterator[tuple[str, str]]:
    """The addresses of two, with the accounts admin@example.com and user@example.com."""
    with temporary_database(database_name) as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        engine = create_engine(sync_url(url))
        with Session(engine) as session:
            for rank in ("admin", "user"):
                session.add(User(email=f"{rank}@example.com", role=rank, password_hash=PASSWORD_HASH))
            session.commit()
        engine.dispose()
        variables = {"DATABASE_URL": url, "SECURITY__PRINCIPAL_CACHE_SECONDS": str(BOUND)}
        with running_server(**variables) as one, running_server(**variables) as other:
            yield one, other


def sign_in(base: str, rank: str) -> httpx2.Client:
    data = {"username": f"{rank}@example.com", "password": PASSWORD}
    answer = httpx2.post(f"{base}/api/v1/auth/token", data=data)
    return httpx2.Client(headers={"Authorization": f"Bearer {answer.json()['access_token']}"})


def seconds_until(client: httpx2.Client, address: str, status: int) -> float:
    """How long it took until the answer had this status; more than the bound means it was given up."""
    start = time.monotonic()
    while (waited := time.monotonic() - start) < BOUND + SLACK:
        if client.get(address).status_code == status:
            break
    return waited


@pytest.mark.slow
def test_a_change_holds_at_once_here_and_within_the_bound_there(two_servers: tuple[str, str]) -> None:
    one, other = two_servers
    with sign_in(one, "admin") as admin:
        role = admin.post(f"{one}/api/v1/roles", json={"name": "Desk", "permissions": ["users:read"]}).json()
        users = admin.get(f"{one}/api/v1/users", params={"q": "user@"}).json()["items"]
        held = f"{one}/api/v1/users/{users[0]['id']}/roles"
        assert admin.put(held, json={"roles": [role["id"]]}).status_code == 200
        with sign_in(one, "user") as user:
            address = f"{one}/api/v1/roles/{role['id']}"
            changes: list[tuple[str, str, dict[str, Any], int]] = [
                ("PATCH", address, {"permissions": []}, 403),
                ("PATCH", address, {"permissions": ["users:read"]}, 200),
                ("PUT", held, {"roles": []}, 403),
                ("PUT", held, {"roles": [role["id"]]}, 200),
            ]
            assert [user.get(f"{base}/api/v1/users").status_code for base in two_servers] == [200, 200]
            for method, url, body, status in changes:
                assert admin.request(method, url, json=body).status_code == 200
                assert user.get(f"{one}/api/v1/users").status_code == status
                assert seconds_until(user, f"{other}/api/v1/users", status) < BOUND + SLACK


@pytest.mark.slow
def test_of_two_who_replace_the_roles_of_a_person_at_once_one_is_the_last(two_servers: tuple[str, str]) -> None:
    with sign_in(two_servers[0], "admin") as admin, ThreadPoolExecutor(2) as threads:
        roles = [
            admin.post(f"{two_servers[0]}/api/v1/roles", json={"name": name, "permissions": []}).json()["id"]
            for name in ("One", "Two")
        ]
        held = "/api/v1/users/2/roles"

        def put(base: str, wanted: list[int]) -> int:
            return admin.put(f"{base}{held}", json={"roles": wanted}).status_code

        for _ in range(10):
            assert put(two_servers[0], []) == 200
            both = [threads.submit(put, base, [role]) for base, role in zip(two_servers, roles, strict=True)]
            assert [one.result() for one in both] == [200, 200]
            assert len(admin.get(f"{two_servers[0]}{held}").json()) == 1
