"""Large answers are compressed for clients that accept it, small ones are not."""

import httpx2


async def test_a_large_answer_is_compressed(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/openapi.json", headers={"Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.json()["openapi"].startswith("3.")


async def test_not_for_clients_that_cannot(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/openapi.json", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in answer.headers


async def test_a_small_answer_is_not(client: httpx2.AsyncClient) -> None:
    answer = await client.get("/no-such-page", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in answer.headers
