"""What callers see of a limit, counted in this process and in Redis alike."""

import os
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest
from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import RedirectResponse
from pydantic import ValidationError

from backend.core.config import BadSetting, forget_current
from backend.core.errors import Conflict
from backend.core.limits import DECLARED, limit
from backend.features import FEATURES
from backend.features.rate_limits.middleware import limiter_of
from backend.features.rate_limits.settings import RateLimitSettings
from backend.main import create_app
from backend.testing import BASE_URL, PASSWORD, new_client, settings_for

router = APIRouter(prefix="/inner")
ADDRESS = limit("test.address", "3/hour", by="ip")


@router.get("/address", dependencies=[ADDRESS])
async def address() -> str:
    return "done"


@router.get("/other", dependencies=[ADDRESS])
async def other() -> str:
    return "done"


@router.get("/both", dependencies=[limit("test.wide", "9/hour", by="ip"), limit("test.narrow", "2/minute", by="ip")])
async def both() -> str:
    return "done"


@router.get("/quick", dependencies=[limit("test.quick", "2/second", by="ip")])
async def quick() -> str:
    return "done"


@router.get("/conflict", dependencies=[limit("test.conflict", "3/hour", by="ip")])
async def conflict() -> str:
    raise Conflict


@router.get("/counted", dependencies=[limit("test.counted", "3/hour", by="ip")])
async def counted() -> str:
    return "done"


@router.get("/redirect", dependencies=[limit("test.redirect", "3/hour", by="ip")])
async def redirect() -> Response:
    return RedirectResponse("/elsewhere")


@router.get("/person", dependencies=[limit("test.person", "2/hour", by="user")])
async def person() -> str:
    return "done"


@router.get("/credential", dependencies=[limit("test.credential", "2/hour", by="credential")])
async def credential() -> str:
    return "done"


TEST = "/api/test/inner"
BACKENDS = ("in this process", "in Redis")
Client = httpx2.AsyncClient
Limited = Callable[..., Awaitable[Client]]


def redis_of(backend: str) -> dict[str, Any]:
    """A slow answer on a busy machine would be counted in this process."""
    return {"url": os.environ["TEST_REDIS_URL"], "timeout": 10} if backend == "in Redis" else {}


def forget_all(app: FastAPI) -> None:
    limiter_of(app, RateLimitSettings.current()).prefix = f"limit:{secrets.token_hex(8)}:"


@pytest.fixture(scope="module", params=BACKENDS)
async def apps(request: pytest.FixtureRequest) -> AsyncIterator[FastAPI]:
    """An app with the routes above."""
    app = create_app(settings_for("sqlite://", redis=redis_of(request.param)))
    app.include_router(router, prefix="/api/test")
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def caller(apps: FastAPI) -> AsyncIterator[Client]:
    forget_all(apps)
    async with new_client(apps) as client:
        yield client


@pytest.fixture
async def limited(make_app: Callable[..., FastAPI]) -> AsyncIterator[Limited]:
    """`await limited(RATE_LIMITS__DEFAULT="5/hour")`: a caller of another app with those routes."""
    async with AsyncExitStack() as stack:

        async def make(**variables: str) -> Client:
            app = make_app(**variables)
            app.include_router(router, prefix="/api/test")
            await stack.enter_async_context(app.router.lifespan_context(app))
            return await stack.enter_async_context(new_client(app))

        yield make


def shown(answer: httpx2.Response) -> tuple[int, ...]:
    """Status, RateLimit-Limit, RateLimit-Remaining."""
    return (answer.status_code, *(int(answer.headers[f"RateLimit-{name}"]) for name in ("Limit", "Remaining")))


async def sign_up(client: Client, email: str) -> None:
    await client.post("/api/v1/auth/signup", json={"email": email, "password": PASSWORD})


async def sign_in(client: Client, email: str) -> dict[str, str]:
    answer = await client.post("/api/v1/auth/token", data={"username": email, "password": PASSWORD})
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


async def test_so_many_are_let_through_and_the_next_is_told_when_to_come_back(caller: Client) -> None:
    path = f"{TEST}/address"
    assert [shown(await caller.get(path)) for _ in range(3)] == [(200, 3, 2), (200, 3, 1), (200, 3, 0)]
    refused = await caller.get(path)
    assert shown(refused) == (429, 3, 0)
    assert refused.json()["error"]["code"] == "too_many_requests"
    assert refused.json()["path"] == path
    assert 1190 < int(refused.headers["Retry-After"]) <= 1200  # one comes free each 20 minutes
    assert 3590 < int(refused.headers["RateLimit-Reset"]) <= 3600
    assert int((await caller.get(path)).headers["Retry-After"]) <= 1200  # what is refused spends nothing


async def test_routes_that_name_the_same_limit_share_it_and_others_do_not(caller: Client) -> None:
    assert shown(await caller.get(f"{TEST}/address")) == (200, 3, 2)
    assert shown(await caller.get(f"{TEST}/other")) == (200, 3, 1)
    assert shown(await caller.get(f"{TEST}/conflict")) == (409, 3, 2)


async def test_what_was_taken_comes_back_with_time(caller: Client) -> None:
    until = time.monotonic() + 20
    while (await caller.get(f"{TEST}/quick")).status_code == 200:
        assert time.monotonic() < until, "it never refused"
    while (await caller.get(f"{TEST}/quick")).status_code == 429:
        assert time.monotonic() < until, "it never let through again"


@pytest.mark.parametrize(("path", "status"), [("conflict", 409), ("redirect", 307)])
async def test_every_kind_of_answer_says_what_is_left(caller: Client, path: str, status: int) -> None:
    assert shown(await caller.get(f"{TEST}/{path}")) == (status, 3, 2)


async def test_of_several_limits_the_tightest_shows(caller: Client) -> None:
    assert [shown(await caller.get(f"{TEST}/both")) for _ in range(3)] == [(200, 2, 1), (200, 2, 0), (429, 2, 0)]
    assert shown(await caller.get(f"{TEST}/address")) == (200, 3, 2)


async def test_one_persons_sessions_count_as_one_by_user_and_each_by_itself_by_credential(caller: Client) -> None:
    for email in ("ada@example.com", "bob@example.com"):
        await sign_up(caller, email)
    ada, again, bob = [await sign_in(caller, f"{name}@example.com") for name in ("ada", "ada", "bob")]

    async def remaining(path: str, headers: dict[str, str]) -> tuple[int, ...]:
        return shown(await caller.get(f"{TEST}/{path}", headers=headers))

    assert [await remaining("person", one) for one in (ada, again, ada, bob)] == [
        (200, 2, 1),
        (200, 2, 0),
        (429, 2, 0),
        (200, 2, 1),
    ]
    assert [await remaining("credential", one) for one in (ada, again, ada, ada)] == [
        (200, 2, 1),
        (200, 2, 1),
        (200, 2, 0),
        (429, 2, 0),
    ]
    assert (await caller.get(f"{TEST}/person")).status_code == 401


async def test_an_api_key_is_counted_apart_from_others_of_the_same_person(caller: Client) -> None:
    if "api_keys" not in FEATURES:
        pytest.skip("the api_keys feature is not in this tree")
    await sign_up(caller, "ada@example.com")
    person = await sign_in(caller, "ada@example.com")
    keys = []
    for name in ("one", "two"):
        made = await caller.post("/api/v1/api-keys", json={"name": name, "scopes": []}, headers=person)
        assert made.status_code == 201, made.text
        keys.append({"X-API-Key": made.json()["key"]})
    answers = [await caller.get(f"{TEST}/credential", headers=keys[which]) for which in (0, 0, 0, 1)]
    assert [one.status_code for one in answers] == [200, 200, 429, 200]


async def test_a_setting_changes_a_limit_and_another_switches_it_off(limited: Limited) -> None:
    client = await limited(RATE_LIMITS__OVERRIDES="test.address = 1/hour, test.conflict=off")
    assert [shown(await client.get(f"{TEST}/address")) for _ in range(2)] == [(200, 1, 0), (429, 1, 0)]
    answers = [await client.get(f"{TEST}/conflict") for _ in range(5)]
    assert {one.status_code for one in answers} == {409}
    assert "RateLimit-Limit" not in answers[-1].headers


async def test_apps_that_share_a_redis_share_limits_under_one_prefix_only(limited: Limited) -> None:
    one, other = (f"test-{secrets.token_hex(8)}" for _ in range(2))
    seen = []
    for prefix in (one, other, one):
        client = await limited(REDIS_URL=os.environ["TEST_REDIS_URL"], REDIS__TIMEOUT="10", REDIS__PREFIX=prefix)
        seen.append(shown(await client.get(f"{TEST}/address")))
    assert seen == [(200, 3, 2), (200, 3, 2), (200, 3, 1)]


async def test_the_default_limits_the_api_and_nothing_else(limited: Limited) -> None:
    client = await limited(RATE_LIMITS__DEFAULT="2/hour")
    assert [shown(await client.get("/api/v1/auth/me")) for _ in range(2)] == [(401, 2, 1), (401, 2, 0)]
    refused = await client.get("/api/v1/nowhere")
    assert shown(refused) == (429, 2, 0)
    assert refused.json()["error"]["code"] == "too_many_requests"
    assert int(refused.headers["Retry-After"]) > 1
    for path in ("/live", "/openapi.json", "/admin/login", "/"):
        answer = await client.get(path)
        assert answer.status_code != 429
        assert "RateLimit-Limit" not in answer.headers


async def test_metrics_count_what_limits_said(caller: Client) -> None:
    if "metrics" not in FEATURES:
        pytest.skip("the metrics feature is not in this tree")
    for _ in range(5):
        await caller.get(f"{TEST}/counted")
    text = (await caller.get("/metrics")).text
    assert 'rate_limit_checks_total{limit="test.counted",outcome="allowed"} 3.0' in text
    assert 'rate_limit_checks_total{limit="test.counted",outcome="limited"} 2.0' in text


@pytest.mark.parametrize(
    ("variable", "value", "complaint"),
    [
        ("RATE_LIMITS__OVERRIDES", "test.address=10/minutes", "'10/minutes' is no rate: write it like 60/minute"),
        ("RATE_LIMITS__OVERRIDES", "test.address", "'' is no rate"),
        ("RATE_LIMITS__OVERRIDES", "test.addresses=1/hour", r"which is no limit: did you mean test\.address"),
        ("RATE_LIMITS__OVERRIDES", "zzz=1/hour", r"zzz, which is no limit: there are .*auth\.token"),
        ("RATE_LIMITS__DEFAULT", "many", "'many' is no rate"),
    ],
)
def test_a_setting_that_cannot_be_meant_stops_the_start(
    make_app: Callable[..., FastAPI], variable: str, value: str, complaint: str
) -> None:
    with pytest.raises((BadSetting, ValidationError), match=complaint):
        make_app(**{variable: value})


# --- the limits of this tree ---------------------------------------------------------------------------------------

LOGIN = {"Sec-Fetch-Site": "same-origin", "Origin": BASE_URL}
WRONG = {"username": "nobody@example.com", "password": PASSWORD}
# Name of a limit → a request that it looks at.
REQUESTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "auth.token": ("POST", "/api/v1/auth/token", {"data": WRONG}),
    "auth.signup": ("POST", "/api/v1/auth/signup", {"json": {}}),
    "auth.second_factor": ("POST", "/api/v1/auth/second-factor", {"json": {}}),
    "auth.refresh": ("POST", "/api/v1/auth/refresh", {}),
    "auth.password_reset": ("POST", "/api/v1/auth/password-reset/request", {"json": {}}),
    "auth.verify_email": ("POST", "/api/v1/auth/verify-email/request", {"json": {}}),
    "auth.external": ("GET", "/api/v1/auth/external/nobody/start", {}),
    "auth.totp": ("POST", "/api/v1/auth/totp/confirm", {"json": {}}),
    "console.sign_in": ("POST", "/admin/login", {"data": WRONG, "headers": LOGIN}),
    "items.paged": ("GET", "/api/v2/store/items/paged", {}),
    "status.live": ("GET", "/status/live?limit=1", {}),
    "realtime.connect": ("GET", "/api/v2/sse/stream?limit=1", {}),
}
BY_MESSAGE = {"realtime.messages"}


def test_every_limit_of_this_tree_is_tried_here() -> None:
    own = {name for name in DECLARED if not name.startswith("test.")}
    assert own <= REQUESTS.keys() | BY_MESSAGE


@pytest.fixture(scope="module")
async def strict() -> AsyncIterator[Client]:
    """A signed-in caller of an app in which each limit lets one request through."""
    lines = ",".join(f"{name}=1/day" for name in REQUESTS if name in DECLARED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RATE_LIMITS__OVERRIDES", lines)
        forget_current()
        app = create_app(settings_for("sqlite://"))
    forget_current()
    async with app.router.lifespan_context(app), new_client(app) as client:
        await sign_up(client, "ada@example.com")
        client.headers.update(await sign_in(client, "ada@example.com"))
        forget_all(app)
        yield client


@pytest.mark.parametrize("name", REQUESTS)
async def test_each_limit_is_where_it_belongs(strict: Client, name: str) -> None:
    if name not in DECLARED:
        pytest.skip(f"{name} is not in this tree")
    method, path, options = REQUESTS[name]
    first, second = [await strict.request(method, path, **options) for _ in range(2)]
    assert first.status_code not in (429, 500)
    assert shown(first)[1:] == (1, 0)
    assert shown(second) == (429, 1, 0)
    assert int(second.headers["Retry-After"]) > 86000


def test_the_document_tells_of_every_limited_operation(make_app: Callable[..., FastAPI]) -> None:
    document = make_app().openapi()
    for name, (method, path, _) in REQUESTS.items():
        if name not in DECLARED or not path.startswith("/api"):
            continue
        template = path.partition("?")[0].replace("/nobody/", "/{provider}/")
        answer = document["paths"][template][method.lower()]["responses"]["429"]
        assert answer["headers"].keys() == {
            "RateLimit-Limit",
            "RateLimit-Remaining",
            "RateLimit-Reset",
            "Retry-After",
        }
        assert "too_many_requests" in answer["content"]["application/json"]["examples"]
    assert "429" not in document["paths"]["/api/v1/auth/me"]["get"]["responses"]
