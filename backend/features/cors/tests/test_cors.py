"""Only the listed origins may call from a browser, with exactly the headers and methods that the API uses."""

from collections.abc import Callable

import httpx2
from fastapi import FastAPI

from backend.core.config import Settings
from backend.features.cors import CorsSettings
from backend.testing import new_client

PREFLIGHT = {
    "Origin": "https://app.example.com",
    "Access-Control-Request-Method": "PATCH",
    "Access-Control-Request-Headers": "authorization,if-match",
}


async def test_no_origin_is_allowed_by_default(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/openapi.json", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_a_listed_origin_may_call_and_read_our_headers(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(ALLOWED_ORIGINS="https://app.example.com, https://b.example")
    async with new_client(app) as client:
        preflight = await client.options("/api/v1/users/1", headers=PREFLIGHT)
        answer = await client.get("/openapi.json", headers={"Origin": "https://app.example.com"})
        stranger = await client.options("/api/v1/users/1", headers=PREFLIGHT | {"Origin": "https://evil.example"})
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
    assert "PATCH" in preflight.headers["Access-Control-Allow-Methods"]
    assert "ETag" in answer.headers["Access-Control-Expose-Headers"]
    assert stranger.status_code == 400


async def test_a_browser_may_send_what_the_api_takes_and_read_what_it_says(make_app: Callable[..., FastAPI]) -> None:
    app = make_app(ALLOWED_ORIGINS="https://app.example.com")
    operations = [one for path in app.openapi()["paths"].values() for one in path.values()]
    taken = {one["name"].lower() for each in operations for one in each.get("parameters", ()) if one["in"] == "header"}
    said = {name for each in operations for one in each["responses"].values() for name in one.get("headers", ())}
    taken |= {"authorization", "content-type", "if-none-match"}
    said |= {"ETag", "Link", "Location", "Trace-Id", "X-Request-ID", "X-Total-Count", "X-Total-Estimated"}
    async with new_client(app) as client:

        async def preflight(*names: str) -> int:
            asked = PREFLIGHT | {"Access-Control-Request-Headers": ",".join(sorted(names))}
            return (await client.options("/api/v1/users/1", headers=asked)).status_code

        assert {name: await preflight(name) for name in taken} == dict.fromkeys(taken, 200)
        assert await preflight("x-api-key") == 400, "keys have no business in pages"
        answer = await client.get("/openapi.json", headers={"Origin": "https://app.example.com"})
    assert said <= set(answer.headers["Access-Control-Expose-Headers"].split(", "))


def test_a_wildcard_with_credentials_is_unfit_for_production(environment: Callable[..., None]) -> None:
    environment(CORS__ALLOWED_ORIGINS="*", CORS__ALLOW_CREDENTIALS="true")
    assert "CORS__ALLOWED_ORIGINS" in CorsSettings().offences(Settings())[0]
    environment(CORS__ALLOW_CREDENTIALS="false")
    assert CorsSettings().offences(Settings()) == []
