"""What happens at once, on connections of their own: however requests meet, the work is done once."""

import asyncio
import random
import secrets
from collections import Counter
from datetime import timedelta

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import col, delete, update
from starlette.types import Message

from backend.core.models import utc_now
from backend.features.idempotency.models import IdempotencyKey
from backend.features.idempotency.tests.conftest import THINGS, Gate, account, add_routes, keys_of, made
from backend.features.users.models import User
from backend.main import create_app
from backend.testing import new_client, settings_for


def thing(how: str = "") -> dict[str, str]:
    return {"kind": secrets.token_hex(4), "how": how}


def key() -> dict[str, str]:
    return {"Idempotency-Key": secrets.token_hex(8)}


def said(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def test_while_the_first_one_runs_another_is_409(
    committed_app: FastAPI, ada: httpx2.AsyncClient, gate: Gate
) -> None:
    body, headers = thing("held"), key()
    first = asyncio.create_task(ada.post(THINGS, json=body, headers=headers))
    await gate.reached.wait()
    second = await ada.post(THINGS, json=body, headers=headers)
    other = await ada.post(THINGS, json=thing(), headers=headers)
    gate.open.set()
    assert said(second) == (409, "idempotency_in_progress")
    assert second.headers["Retry-After"] == "1"
    assert said(other) == (422, "idempotency_key_reused")
    assert (await first).status_code == 201
    third = await ada.post(THINGS, json=body, headers=headers)
    assert third.content == (await first).content
    assert await made(committed_app, body["kind"]) == 1


@pytest.mark.parametrize("seed", range(4))
async def test_however_many_come_in_whatever_order_there_is_one(
    committed_app: FastAPI, ada: httpx2.AsyncClient, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311
    things = [(thing(), key()) for _ in range(4)]

    async def insist(body: dict[str, str], headers: dict[str, str]) -> httpx2.Response:
        """As a client does that wants its answer; some turn up late."""
        for _ in range(chance.randrange(30)):
            await asyncio.sleep(0)
        while (answer := await ada.post(THINGS, json=body, headers=headers)).status_code in (409, 503):
            await asyncio.sleep(0.01)
        return answer

    requests = [one for one in things for _ in range(8)]
    chance.shuffle(requests)
    answers = await asyncio.gather(*(insist(body, headers) for body, headers in requests))
    assert Counter(one.status_code for one in answers) == {201: 32}
    assert sum("Idempotent-Replayed" not in one.headers for one in answers) == 4
    for body, _ in things:
        given = {one.content for one, (asked, _) in zip(answers, requests, strict=True) if asked is body}
        assert len(given) == 1
        assert await made(committed_app, body["kind"]) == 1


async def test_another_process_knows_the_answer(
    committed_app: FastAPI, committed_database_url: str, ada: httpx2.AsyncClient, gate: Gate
) -> None:
    body, headers = thing(), key()
    first = await ada.post(THINGS, json=body, headers=headers)
    restarted = create_app(settings_for(committed_database_url))
    add_routes(restarted, gate)
    async with restarted.router.lifespan_context(restarted), new_client(restarted, headers=ada.headers) as client:
        again = await client.post(THINGS, json=body, headers=headers)
    assert (again.content, again.headers["Location"]) == (first.content, first.headers["Location"])
    assert again.headers["Idempotent-Replayed"] == "true"
    assert await made(committed_app, body["kind"]) == 1


async def test_who_was_given_up_cannot_commit_any_more(
    committed_app: FastAPI, ada: httpx2.AsyncClient, gate: Gate
) -> None:
    """It was only slow, not dead: another one has carried out the request in the meantime."""
    body, headers = thing("held"), key()
    slow = asyncio.create_task(ada.post(THINGS, json=body, headers=headers))
    await gate.reached.wait()
    [row] = await keys_of(committed_app, ada)
    async with committed_app.state.database.session() as session:
        earlier = utc_now() - timedelta(seconds=1)
        mine = col(IdempotencyKey.key_hash) == row.key_hash
        await session.exec(update(IdempotencyKey).where(mine).values(claimed_until=earlier))
        await session.commit()
    gate.reached.clear()
    second = asyncio.create_task(ada.post(THINGS, json=body, headers=headers))
    await gate.reached.wait()
    gate.open.set()
    assert said(await slow) == (409, "idempotency_in_progress")
    assert (await second).status_code == 201
    assert (await ada.post(THINGS, json=body, headers=headers)).content == (await second).content
    assert await made(committed_app, body["kind"]) == 1


async def test_a_request_that_is_cancelled_gives_its_key_back(
    committed_app: FastAPI, ada: httpx2.AsyncClient, gate: Gate
) -> None:
    body, headers = thing("held"), key()
    first = asyncio.create_task(ada.post(THINGS, json=body, headers=headers))
    await gate.reached.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await keys_of(committed_app, ada) == []
    gate.open.set()
    assert (await ada.post(THINGS, json=body, headers=headers)).status_code == 201
    assert await made(committed_app, body["kind"]) == 1


@pytest.mark.parametrize(
    ("how", "expected"),
    [("conflict", (409, "conflict")), ("clash", (409, "conflict")), ("bug", (500, "internal_error"))],
)
async def test_what_fails_leaves_nothing_and_can_be_tried_again(
    committed_app: FastAPI, ada: httpx2.AsyncClient, how: str, expected: tuple[int, str]
) -> None:
    """`clash` fails at the commit only, when the answer is there already."""
    body, headers = thing(how), key()
    for _ in range(2):
        assert said(await ada.post(THINGS, json=body, headers=headers)) == expected
    assert await keys_of(committed_app, ada) == []
    assert await made(committed_app, body["kind"]) == 0


async def test_a_stream_is_not_kept_but_carried_out_once(committed_app: FastAPI, ada: httpx2.AsyncClient) -> None:
    body, headers = thing(), key()
    first = await ada.post(f"{THINGS}/stream", json=body, headers=headers)
    assert (first.status_code, first.content) == (200, b"onetwo")
    again = await ada.post(f"{THINGS}/stream", json=body, headers=headers)
    assert said(again) == (409, "idempotency_answer_not_kept")
    assert await made(committed_app, body["kind"]) == 1


async def delete_elsewhere(app: FastAPI, client: httpx2.AsyncClient) -> None:
    """As another process would: this one goes on with what it knows of the caller."""
    me = (await client.get("/api/v1/auth/me")).json()["id"]
    await account(app.state.database)  # SQLite gives the latest id again
    async with app.state.database.session() as session:
        await session.exec(delete(User).where(col(User.id) == me))
        await session.commit()


async def test_a_deleted_account_is_401_where_it_is_still_known(
    committed_app: FastAPI, ada: httpx2.AsyncClient
) -> None:
    await delete_elsewhere(committed_app, ada)
    body = thing()
    assert said(await ada.post(THINGS, json=body, headers=key())) == (401, "unauthorized")
    assert await made(committed_app, body["kind"]) == 0


async def test_an_account_that_is_deleted_meanwhile_is_401_and_nothing_is_done(
    committed_app: FastAPI, ada: httpx2.AsyncClient, gate: Gate
) -> None:
    body = thing("held")
    first = asyncio.create_task(ada.post(THINGS, json=body, headers=key()))
    await gate.reached.wait()
    await delete_elsewhere(committed_app, ada)
    gate.open.set()
    assert said(await first) == (401, "unauthorized")
    assert await made(committed_app, body["kind"]) == 0


async def test_a_client_that_leaves_in_the_middle_of_its_body_has_asked_nothing(
    committed_app: FastAPI, ada: httpx2.AsyncClient
) -> None:
    events: list[Message] = [
        {"type": "http.request", "body": b'{"kind": "gone"', "more_body": True},
        {"type": "http.disconnect"},
    ]
    sent = {**ada.headers, **key(), "Content-Type": "application/json"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": THINGS,
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in sent.items()],
    }

    async def receive() -> Message:
        return events.pop(0) if events else {"type": "http.disconnect"}

    async def send(_message: Message) -> None: ...

    await committed_app(scope, receive, send)
    assert await keys_of(committed_app, ada) == []
    assert await made(committed_app, "gone") == 0
