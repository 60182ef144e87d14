"""Every answer carries the security headers, errors included; HSTS outside development."""

from collections.abc import Callable

import httpx2
import pytest
from fastapi import FastAPI

from backend.features.security_headers import HEADERS
from backend.testing import new_client

SECRET = "x" * 40
PRODUCTION = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": SECRET,
    "API__PUBLIC_URL": "https://example.com",
    "MAIL__BACKEND": "smtp",
}


@pytest.mark.parametrize("path", ["/openapi.json", "/nowhere", "/api/v1/users/me", "/admin/login"])
async def test_every_answer_has_them(client: httpx2.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    assert {name: headers.get(name) for name in HEADERS} == HEADERS
    assert "Strict-Transport-Security" not in headers


async def test_a_bug_has_them_too(make_app: Callable[..., FastAPI]) -> None:
    app = make_app()

    @app.get("/bug")
    async def bug() -> None:
        raise LookupError

    async with new_client(app) as client:
        answer = await client.get("/bug")
    assert answer.status_code == 500
    assert answer.headers["X-Frame-Options"] == "DENY"


async def test_https_is_insisted_on_outside_development(make_app: Callable[..., FastAPI]) -> None:
    production = make_app(**PRODUCTION)
    async with new_client(production) as client:
        assert (await client.get("/nowhere")).headers["Strict-Transport-Security"].startswith("max-age=31536000")
    without = make_app(**PRODUCTION, SECURITY_HEADERS__HSTS_SECONDS="0")
    async with new_client(without) as client:
        assert "Strict-Transport-Security" not in (await client.get("/nowhere")).headers


def test_the_policy_allows_nothing_inline_and_nothing_foreign() -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy
    assert "http" not in policy
    assert "*" not in policy
