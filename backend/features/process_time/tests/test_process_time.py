"""Server-Timing says how long the app took."""

import re

import httpx2


async def test_answers_say_how_long_they_took(client: httpx2.AsyncClient) -> None:
    timing = (await client.get("/openapi.json")).headers["Server-Timing"]
    assert re.fullmatch(r"app;dur=\d+\.\d\d", timing)
