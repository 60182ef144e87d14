"""What is asked: of the app, of the references, and what the ratio of the two shall be."""

import json
from dataclasses import dataclass

import httpx2

from bench.load import Ask

PERSON = {"email": "bench@example.com", "password": "many requests a second"}
ITEM = {"name": "Lamp", "description": "Oak, with a linen shade", "price": "19.99", "stock": 3}
MANY = 100  # items in the store before the load, and in a list
ITEMS = "/api/v1/store/items"
UNCACHED = ("Cache-Control", "no-store")
JSON = ("Content-Type", "application/json")


@dataclass(frozen=True)
class Case:
    name: str
    reference: str
    target: float  # requests/s, as a share of the reference's
    says: str
    asks_database: bool = False


REFERENCES = {  # name: module, what to ask
    "starlette": ("bare_starlette", Ask("/json")),
    "typed": ("bare_fastapi", Ask("/json")),
    "raw-item": ("raw_asyncpg", Ask("/items/1")),
    "raw-list": ("raw_asyncpg", Ask(f"/items?limit={MANY}")),
    "raw-create": ("raw_asyncpg", Ask("/items", "POST", (JSON,), json.dumps(ITEM))),
}

CASES = (
    Case("live", "typed", 0.70, "GET /live"),
    Case("me", "typed", 0.40, "GET /api/v1/users/me"),
    Case("item", "raw-item", 0.55, "one item, uncached", asks_database=True),
    Case("item-cached", "starlette", 0.12, "one item, cached"),
    Case("list", "raw-list", 0.75, f"list of {MANY}, uncached", asks_database=True),
    Case("list-cached", "starlette", 0.10, f"list of {MANY}, cached"),
    Case("create", "raw-create", 0.40, "create an item, with audit", asks_database=True),
)


async def prepare(client: httpx2.AsyncClient) -> dict[str, Ask]:
    """Somebody signs up, signs in and puts items up for sale: what to ask in each case, as that person."""
    (await client.post("/api/v1/auth/signup", json=PERSON)).raise_for_status()
    form = {"username": PERSON["email"], "password": PERSON["password"]}
    signed_in = (await client.post("/api/v1/auth/token", data=form)).raise_for_status()
    caller = ("Authorization", f"Bearer {signed_in.json()['access_token']}")
    for _ in range(MANY):
        (await client.post(ITEMS, json=ITEM, headers=[caller])).raise_for_status()
    one, many = f"{ITEMS}/1", f"{ITEMS}?limit={MANY}"
    return {
        "live": Ask("/live"),
        "me": Ask("/api/v1/users/me", headers=(caller,)),
        "item": Ask(one, headers=(caller, UNCACHED)),
        "item-cached": Ask(one, headers=(caller,)),
        "list": Ask(many, headers=(caller, UNCACHED)),
        "list-cached": Ask(many, headers=(caller,)),
        "create": Ask(ITEMS, "POST", (caller, JSON), json.dumps(ITEM)),
    }
