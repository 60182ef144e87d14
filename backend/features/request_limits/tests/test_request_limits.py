"""Too large a body is 413, too large headers are 431, both in the error shape, whether announced or not."""

from collections.abc import AsyncIterator

import httpx2
import pytest

SIGNUP = "/api/v1/auth/signup"
TOO_MUCH = b"x" * (1024 * 1024 + 1)


async def chunks() -> AsyncIterator[bytes]:
    for _ in range(20):
        yield b"x" * 64 * 1024


async def test_an_announced_large_body_is_refused(client: httpx2.AsyncClient) -> None:
    answer = await client.post(SIGNUP, content=TOO_MUCH, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "content_too_large")


async def test_so_is_one_of_unknown_length(client: httpx2.AsyncClient) -> None:
    answer = await client.post(SIGNUP, content=chunks(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "content_too_large")


@pytest.mark.parametrize("path", ["/api/v1/auth/token", "/admin/login"])
async def test_so_is_a_large_form(client: httpx2.AsyncClient, path: str) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}
    assert (await client.post(path, content=TOO_MUCH, headers=form)).status_code == 413


async def test_large_headers_are_refused(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/openapi.json", headers={"Cookie": "a=" + "b" * 40_000})
    assert (answer.status_code, answer.json()["error"]["code"]) == (431, "headers_too_large")


@pytest.mark.slow
async def test_ten_megabytes_of_cookies_do_not_hurt_a_real_server(live_server: str) -> None:
    async with httpx2.AsyncClient(base_url=live_server) as client:
        try:
            answer = await client.get("/openapi.json", headers={"Cookie": "a=" + "b" * 10_000_000})
        except httpx2.TransportError:
            pass  # the server hung up on it before the end: as good an answer
        else:
            assert answer.status_code in (400, 431)
        assert (await client.get("/openapi.json")).status_code == 200


async def test_a_body_at_the_limit_passes(client: httpx2.AsyncClient) -> None:
    answer = await client.post(SIGNUP, content=TOO_MUCH[:-1], headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
