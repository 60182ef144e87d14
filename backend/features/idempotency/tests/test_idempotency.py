"""A request with an Idempotency-Key is carried out once, and its answer given again."""

import base64
import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel import col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.config import SecuritySettings
from backend.core.models import utc_now
from backend.features.idempotency import service
from backend.features.idempotency.answers import Answer, kept_of, opened, sealed
from backend.features.idempotency.models import IdempotencyKey
from backend.testing import PASSWORD, ClientFor, MakeUser

USERS = "/api/v1/users"


def body(**fields: str) -> dict[str, str]:
    return {"email": f"new-{secrets.token_hex(4)}@example.com", "password": PASSWORD, **fields}


def key(value: str = "") -> dict[str, str]:
    return {"Idempotency-Key": value or secrets.token_hex(8)}


def said(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def rows(session: AsyncSession) -> list[IdempotencyKey]:
    return list((await session.exec(select(IdempotencyKey))).all())


async def test_the_answer_comes_again_with_its_headers(app: FastAPI, as_admin: httpx2.AsyncClient) -> None:
    new, headers, before = body(), key(), app.state.tallies["idempotent_replays", ""]
    first = await as_admin.post(USERS, json=new, headers=headers)
    again = await as_admin.post(USERS, json=new, headers=headers)
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    for name in ("Content-Type", "Content-Length", "Location", "ETag"):
        assert first.headers[name] == again.headers[name]
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert app.state.tallies["idempotent_replays", ""] == before + 1


async def test_without_a_key_it_is_carried_out_again(as_admin: httpx2.AsyncClient) -> None:
    new = body()
    assert [(await as_admin.post(USERS, json=new)).status_code for _ in range(2)] == [201, 409]


async def test_so_is_a_deletion_without_an_answer_to_speak_of(as_admin: httpx2.AsyncClient) -> None:
    place = (await as_admin.post(USERS, json=body())).headers["Location"]
    headers = key()
    answers = [await as_admin.delete(place, headers=headers) for _ in range(2)]
    assert [(one.status_code, one.content) for one in answers] == [(204, b""), (204, b"")]
    assert (await as_admin.delete(place)).status_code == 404


async def test_a_key_that_was_used_for_something_else_is_422(as_admin: httpx2.AsyncClient) -> None:
    new, headers = body(), key()
    place = (await as_admin.post(USERS, json=new, headers=headers)).headers["Location"]
    others = (
        as_admin.post(USERS, json=body(), headers=headers),
        as_admin.post(f"{USERS}?twice=1", json=new, headers=headers),
        as_admin.post(USERS.replace("v1", "v2"), json=new, headers=headers),
        as_admin.put(place, json=new, headers=headers),
        as_admin.post(USERS, json=new, headers={**headers, "Content-Type": "application/json; charset=utf-8"}),
    )
    for other in others:
        assert said(await other) == (422, "idempotency_key_reused")
    assert (await as_admin.post(USERS, json=new, headers=headers)).headers["Idempotent-Replayed"] == "true"


async def test_quotes_do_not_belong_to_the_key(as_admin: httpx2.AsyncClient) -> None:
    new = body()
    assert (await as_admin.post(USERS, json=new, headers=key('"a-1"'))).status_code == 201
    assert (await as_admin.post(USERS, json=new, headers=key("a-1"))).headers["Idempotent-Replayed"] == "true"
    assert (await as_admin.post(USERS, json=new, headers=key('"A-1"'))).status_code == 409  # another: carried out
    assert (await as_admin.post(USERS, json=new, headers=key('"a-1 "'))).status_code == 409


@pytest.mark.parametrize("value", [b"", b'""', b"a b", b'"a', b'"a"b"', b"x" * 256, b"\xe4", b'"a\tb"', b'"a";b=1'])
async def test_what_is_no_key_is_400(as_admin: httpx2.AsyncClient, value: bytes) -> None:
    answer = await as_admin.post(USERS, json=body(), headers=[(b"Idempotency-Key", value)])
    assert said(answer) == (400, "bad_idempotency_key")


async def test_two_keys_are_400(as_admin: httpx2.AsyncClient) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
    assert said(await as_admin.post(USERS, json=body(), headers=headers)) == (400, "bad_idempotency_key")


async def test_the_longest_key_is_good(as_admin: httpx2.AsyncClient) -> None:
    new, headers = body(), key('"' + '\\"' * 255 + '"')
    answers = [await as_admin.post(USERS, json=new, headers=headers) for _ in range(2)]
    assert [one.status_code for one in answers] == [201, 201]


async def test_keys_are_their_callers_own(make_user: MakeUser, client_for: ClientFor) -> None:
    ada, bob = client_for(await make_user("admin")), client_for(await make_user("admin"))
    headers = key()
    made = [(await one.post(USERS, json=body(), headers=headers)).json()["id"] for one in (ada, bob)]
    assert len(set(made)) == 2


async def test_strangers_have_no_keys(client: httpx2.AsyncClient, session: AsyncSession) -> None:
    new, headers = body(), key("not even a good one")
    answers = [await client.post("/api/v1/auth/signup", json=new, headers=headers) for _ in range(2)]
    assert [one.status_code for one in answers] == [201, 409]
    assert (await client.post(USERS, json=new, headers=headers)).status_code == 401
    assert await rows(session) == []


async def test_who_lost_a_permission_gets_no_answer_from_before(
    make_user: MakeUser, client_for: ClientFor, session: AsyncSession
) -> None:
    user = await make_user("admin")
    new, headers = body(), key()
    assert (await client_for(user).post(USERS, json=new, headers=headers)).status_code == 201
    narrowed = client_for(user, "users:read")
    assert said(await narrowed.post(USERS, json=new, headers=headers)) == (422, "idempotency_key_reused")
    assert len(await rows(session)) == 1


async def test_errors_are_not_kept_and_leave_the_key_free(as_admin: httpx2.AsyncClient, session: AsyncSession) -> None:
    headers, new = key(), body()
    assert (await as_admin.patch(f"{USERS}/999999", json={"full_name": "A"}, headers=headers)).status_code == 404
    assert (await as_admin.post(USERS, json={"email": "no"}, headers=headers)).status_code == 422
    assert (await as_admin.post(USERS, content=b"{", headers=headers)).status_code == 422
    assert (await as_admin.post("/api/v1/nowhere", json=new, headers=headers)).status_code == 404
    assert await rows(session) == []
    assert (await as_admin.post(USERS, json=new, headers=headers)).status_code == 201
    other = body(email=new["email"])
    assert (await as_admin.post(USERS, json=other, headers=key())).status_code == 409
    assert len(await rows(session)) == 1


async def test_so_does_what_is_not_permitted(as_user: httpx2.AsyncClient, session: AsyncSession) -> None:
    assert (await as_user.post(USERS, json=body(), headers=key())).status_code == 403
    assert await rows(session) == []


async def test_a_body_that_is_too_large_is_413(as_admin: httpx2.AsyncClient, session: AsyncSession) -> None:
    pytest.importorskip("backend.features.request_limits")

    async def chunks() -> Any:
        for _ in range(20):
            yield b"x" * 64 * 1024

    assert (await as_admin.post(USERS, content=chunks(), headers=key())).status_code == 413
    assert await rows(session) == []


async def test_keys_end_by_time_and_can_then_be_used_again(as_admin: httpx2.AsyncClient, session: AsyncSession) -> None:
    headers = key()
    assert (await as_admin.post(USERS, json=body(), headers=headers)).status_code == 201
    await session.exec(update(IdempotencyKey).values(expires_at=utc_now()))
    await session.commit()
    again = await as_admin.post(USERS, json=body(), headers=headers)
    assert again.status_code == 201
    assert "Idempotent-Replayed" not in again.headers


async def test_expired_keys_are_deleted_in_batches(
    app: FastAPI, as_admin: httpx2.AsyncClient, session: AsyncSession
) -> None:
    for number in range(5):
        await as_admin.patch("/api/v1/users/me", json={"full_name": "Ada"}, headers=key(f"k{number}"))
    kept, *others = (one.key_hash for one in await rows(session))
    moment = utc_now() - timedelta(seconds=1)
    await session.exec(update(IdempotencyKey).where(col(IdempotencyKey.key_hash).in_(others)).values(expires_at=moment))
    await session.commit()
    batches = [await service.delete_expired(app.state.database, batch=3) for _ in range(3)]
    assert batches == [3, 1, 0]
    session.expire_all()
    assert [one.key_hash for one in await rows(session)] == [kept]


async def test_keys_go_with_their_person(
    make_user: MakeUser, client_for: ClientFor, as_admin: httpx2.AsyncClient, session: AsyncSession
) -> None:
    user = await make_user("admin")
    await client_for(user).post(USERS, json=body(), headers=key())
    assert len(await rows(session)) == 1
    assert (await as_admin.delete(f"{USERS}/{user.id}")).status_code == 204
    session.expire_all()
    assert await rows(session) == []


async def test_who_deletes_their_own_account_hears_so(
    make_user: MakeUser, client_for: ClientFor, as_admin: httpx2.AsyncClient, session: AsyncSession
) -> None:
    user = await make_user("admin")
    ada, place, headers = client_for(user), f"{USERS}/{user.id}", key()
    assert [(await ada.delete(place, headers=headers)).status_code for _ in range(2)] == [204, 401]
    assert (await as_admin.get(place)).status_code == 404
    assert await rows(session) == []


async def test_an_answer_that_holds_a_secret_is_not_kept(
    make_user: MakeUser, client_for: ClientFor, session: AsyncSession
) -> None:
    """`Cache-Control: no-store` says so, here for an access token."""
    user = await make_user("admin")
    ada, headers, form = client_for(user), key(), {"username": user.email, "password": PASSWORD}
    first = await ada.post("/api/v1/auth/token", data=form, headers=headers)
    assert (first.status_code, first.headers["Cache-Control"]) == (200, "no-store")
    assert said(await ada.post("/api/v1/auth/token", data=form, headers=headers)) == (
        409,
        "idempotency_answer_not_kept",
    )
    assert [one.answer for one in await rows(session)] == [None]


async def test_of_an_answer_that_is_too_large_only_that_it_was_given(
    as_admin: httpx2.AsyncClient, environment: Callable[..., None]
) -> None:
    environment(IDEMPOTENCY__ANSWER_BYTES="10")
    new, headers = body(), key()
    assert (await as_admin.post(USERS, json=new, headers=headers)).status_code == 201
    assert said(await as_admin.post(USERS, json=new, headers=headers)) == (409, "idempotency_answer_not_kept")


async def test_services_have_keys_too(as_admin: httpx2.AsyncClient, app: FastAPI) -> None:
    pytest.importorskip("backend.features.api_keys")
    asked = {"name": "Import", "scopes": ["users:write"]}
    answer = await as_admin.post("/api/v1/api-keys", json=asked)
    new, headers = body(), {**key(), "X-API-Key": answer.json()["key"]}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://localhost") as service:
        first, again = [await service.post(USERS, json=new, headers=headers) for _ in range(2)]
    assert (first.status_code, again.status_code, first.content) == (201, 201, again.content)
    assert again.headers["Idempotent-Replayed"] == "true"
    del headers["X-API-Key"]  # the person behind the key may do other things than the key
    assert said(await as_admin.post(USERS, json=new, headers=headers)) == (422, "idempotency_key_reused")


async def test_nothing_is_asked_of_the_database_without_a_key(
    as_admin: httpx2.AsyncClient, statements: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    await as_admin.get(USERS)
    with statements() as seen:
        assert (await as_admin.post(USERS, json=body())).status_code == 201
        assert (await as_admin.get(USERS, headers=key())).status_code == 200
    assert not [one for one in seen if "idempotency" in one]


async def test_with_a_key_it_takes_two_statements(
    as_admin: httpx2.AsyncClient, statements: Callable[[], AbstractContextManager[list[str]]]
) -> None:
    await as_admin.get(USERS)
    with statements() as seen:
        assert (await as_admin.post(USERS, json=body(), headers=key())).status_code == 201
    assert [one.split()[0] for one in seen if "idempotency" in one] == ["INSERT", "UPDATE"]


async def test_what_is_stored_tells_a_reader_nothing(as_admin: httpx2.AsyncClient, session: AsyncSession) -> None:
    new, headers = body(), key("order-of-ada")
    answer = await as_admin.post(USERS, json=new, headers=headers)
    [row] = await rows(session)
    assert row.answer
    assert answer.content not in base64.b64decode(row.answer)
    assert "ada" not in row.key_hash


@pytest.mark.parametrize("control", ["no-store", "private, No-Store"])
def test_no_store_is_no_store_however_it_is_written(control: str) -> None:
    start = {"status": 200, "headers": [(b"cache-control", control.encode())]}
    assert kept_of(start, b"secret", largest=100) is None


def test_a_stored_answer_opens_in_its_own_row_with_a_known_key_only() -> None:
    old, new = "o" * 32, "n" * 32
    answer = Answer(status=201, headers=[(b"etag", b'"1"')], body=b'{"a": "\n"}')
    stored = sealed(answer, SecuritySettings(secret_key=old), "1 abc")
    assert opened(stored, SecuritySettings(secret_key=new, previous_secret_keys=old), "1 abc") == answer
    assert opened(stored, SecuritySettings(secret_key=old), "2 abc") is None
    assert opened(stored, SecuritySettings(secret_key=new), "1 abc") is None


def test_openapi_has_the_header_where_it_works(make_app: Callable[..., FastAPI]) -> None:
    for path, operations in make_app().openapi()["paths"].items():
        for method, operation in operations.items():
            names = {one["name"] for one in operation.get("parameters", ())}
            works = path.startswith("/api/") and method in ("post", "put", "patch", "delete") and operation["security"]
            assert ("Idempotency-Key" in names) == bool(works), f"{method} {path}"
            if works:
                assert {"409", "422"} <= operation["responses"].keys(), f"{method} {path}"
