"""The fixture `console`, for tests of the console and of the features' views in it."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2
import pytest
from fastapi import FastAPI

BASE_URL = "http://testserver"
PASSWORD = "correct horse battery staple"  # noqa: S105  the one that backend.testing gives to every account

Console = Callable[..., Awaitable[httpx2.AsyncClient]]


@pytest.fixture
async def console(app: FastAPI) -> AsyncIterator[Console]:
    """`await console("ada@example.com")`: a browser signed in to the console by its form; `(…, None)`: not signed in."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_console(email: str, password: str | None = PASSWORD) -> httpx2.AsyncClient:
            browser = httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app=app),
                base_url=BASE_URL,
                headers={"Sec-Fetch-Site": "same-origin", "Origin": BASE_URL},
            )
            await stack.enter_async_context(browser)
            if password is not None:
                answer = await browser.post("/admin/login", data={"username": email, "password": password})
                assert answer.status_code == 303, answer.text
            return browser

        yield open_console
