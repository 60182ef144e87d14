"""The items API, through HTTP."""

import httpx2


ITEMS = "/api/v1/store/items"


async def test_create_then_read(as_user: httpx2.AsyncClient) -> None:
    created = await as_user.post(ITEMS, json={"name": "Lamp", "price": "19.99"})
    assert created.status_code == 201, created.text
    read = await as_user.get(created.headers["Location"])
    assert read.json() == created.json()
