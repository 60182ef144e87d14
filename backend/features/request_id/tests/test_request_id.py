"""X-Request-ID: made when missing, kept when sane, replaced when not, and the same in the error body and the log."""

import httpx2
import pytest
import structlog
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from backend.core.logging import add_request_id
from backend.features.request_id import RequestId

HEADER = "X-Request-ID"


async def test_every_answer_has_an_id_of_its_own(client: httpx2.AsyncClient) -> None:
    first, second = [(await client.get("/openapi.json")).headers[HEADER] for _ in range(2)]
    assert first != second


async def test_a_sane_id_of_the_caller_is_kept(client: httpx2.AsyncClient) -> None:
    assert (await client.get("/openapi.json", headers={HEADER: "order-42.a_B"})).headers[HEADER] == "order-42.a_B"


@pytest.mark.parametrize("given", ["a b", "x" * 65, "<script>", "ä", ""])
async def test_any_other_is_replaced(client: httpx2.AsyncClient, given: str) -> None:
    answer = await client.get("/openapi.json", headers={HEADER.encode(): given.encode()})
    assert answer.headers[HEADER] != given
    assert len(answer.headers[HEADER]) == 32


@pytest.mark.parametrize("answer", ["websocket.accept", "websocket.http.response.start"])
async def test_the_answer_to_a_websocket_has_one(answer: str) -> None:
    async def socket(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": answer})

    async def note(message: Message) -> None:
        sent.append(message)

    async def nothing() -> Message:
        raise AssertionError

    sent: list[Message] = []
    scope = {"type": "websocket", "headers": [(b"x-request-id", b"find-me")], "state": {"facts": {}}}
    await RequestId(socket)(scope, nothing, note)
    assert sent[0]["headers"] == [(b"x-request-id", b"find-me")]


async def test_the_error_body_carries_it(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/api/v1/users/me", headers={HEADER: "find-me"})
    assert answer.json()["request_id"] == "find-me"


async def test_log_lines_of_the_request_carry_it() -> None:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        log.info("working")

    log = structlog.get_logger()
    scope = {"type": "http", "headers": [(b"x-request-id", b"find-me")], "state": {"facts": {}}}
    with capture_logs(processors=[add_request_id]) as lines:
        await RequestId(answer)(scope, never, ignore)
        log.info("done")
    assert [line.get("request_id") for line in lines] == ["find-me", None]


async def never() -> Message:
    raise AssertionError("nothing reads the body")


async def ignore(message: Message) -> None:
    pass
