"""What the shipped queries cost on a large table: PostgreSQL's plans and times, how fast items are stored in bulk, and
whether the console keeps its bounds: milliseconds for a page, megabytes for an export of everything.

On the PostgreSQL that comes with the tests, or the server of `--database`, in a database of its own, dropped at
the end: only what is printed comes of it.
"""

import argparse
import asyncio
import contextlib
import os
import re
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
from alembic import command
from fastapi import FastAPI
from sqlalchemy import Connection, event, text

from backend.core.paging import encode_cursor
from backend.features.users.models import User
from backend.main import create_app
from backend.testing import (
    PASSWORD,
    PASSWORD_HASH,
    memory_of,
    new_client,
    run_alembic,
    running_server,
    session_of,
    settings_for,
    start_postgresql,
    temporary_database,
    token_for,
)

PEOPLE, OWNERS = 100_000, 1000
ADMIN = "bench@example.com"
REPEATS = 5
LONGEST = 60  # seconds for one statement
BATCH, BATCHES = 1000, 10
ITEMS = "/api/v1/store/items"
PATHS = {
    "one item": f"{ITEMS}/{{middle}}",
    "list of 100": f"{ITEMS}?limit=100",
    "list of 100, from the middle on": f"{ITEMS}?limit=100&cursor={{cursor}}",
    "page 1 of 100": f"{ITEMS}/paged?page_size=100",
    "page 100": f"{ITEMS}/paged?page=100&page_size=100",
    "the middle page": f"{ITEMS}/paged?page={{page}}&page_size=100",
    "search: found often": f"{ITEMS}?limit=20&q=linen",
    "search: found once": f"{ITEMS}?limit=20&q=item+{{middle}}x",
    "search: found nowhere": f"{ITEMS}?limit=20&q=nowhere",
    "search, by page": f"{ITEMS}/paged?page_size=20&q=item+77",
}
MILLISECONDS, MEGABYTES = 300, 50  # for those of `BOUNDED` on two cores; for an export, over the idle process
PAGES = {
    "console: list": "/admin/item/list",
    "console: names that begin so": "/admin/item/list?search=item+{middle}",
    "console: the last page": "/admin/item/list?at=last",
    "console: an item is looked up": "/admin/item/lookup?q=item+{middle}",
    "console: an account is looked up": "/admin/user/lookup?q=person777",
    "console: the last page by name": "/admin/item/list?sortBy=name&at=last",
    "console: the last page by price": "/admin/item/list?sortBy=price&at=last",
    "console: of one owner": "/admin/item/list?f_owner_id=77",
    "console: within the texts": "/admin/item/list?search=nowhere&anywhere=1",
}
BOUNDED = {
    "console: list",
    "console: names that begin so",
    "console: the last page",
    "console: an item is looked up",
    "console: an account is looked up",
}
EXPORTS = ("csv", "json", "xlsx")

PEOPLE_FILL = """
    INSERT INTO users (email, full_name, password_hash, role, is_active, created_at, updated_at, version)
    SELECT 'person' || n || '@example.com', '', '!', 'user', true, now(), now(), 1
    FROM generate_series(1, CAST(:people AS INTEGER)) n"""
ITEMS_FILL = """
    INSERT INTO items (name, description, price, stock, owner_id, created_at, updated_at, version)
    SELECT 'Item ' || n || 'x', 'Oak, with a linen shade', n, n % 500, 1 + n % CAST(:owners AS INTEGER), now(), now(), 1
    FROM generate_series(1, CAST(:rows AS INTEGER)) n"""


def fill(connection: Connection, rows: int) -> None:
    connection.execute(text(PEOPLE_FILL), {"people": PEOPLE})
    connection.execute(text(ITEMS_FILL), {"owners": OWNERS, "rows": rows})


@contextmanager
def statements_of(app: FastAPI) -> Iterator[list[tuple[str, Any]]]:
    """What the app asks the database about items and accounts."""
    seen: list[tuple[str, Any]] = []
    engine = app.state.database.engine.sync_engine

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_rest: Any) -> None:
        if re.search("FROM (items|users)", statement) and not statement.startswith("EXPLAIN"):
            seen.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def explain(app: FastAPI, statement: str, parameters: Any) -> str:
    """How PostgreSQL ran it, and for how long, in one line."""
    async with app.state.database.engine.connect() as connection:
        cursor = (await connection.get_raw_connection()).driver_connection
        rows = await cursor.fetch(f"EXPLAIN ANALYZE {statement}", *parameters, timeout=LONGEST)
    lines = [row[0] for row in rows]
    nodes = [re.sub(r" on \w+$|\s*->\s*|\s+\(cost.*", "", line) for line in lines if "(cost=" in line]
    return f"{lines[-1].removeprefix('Execution Time: '):>12}  {' ← '.join(nodes)}"


def kept(measured: float, bound: float, unit: str) -> str:
    return f"  {'✔' if measured <= bound else '✘'} (bound: {bound} {unit})"


async def report(app: FastAPI, client: httpx2.AsyncClient, name: str, path: str) -> None:
    with statements_of(app) as seen:
        times = []
        for _ in range(REPEATS):
            seen.clear()
            began = time.perf_counter()
            (await client.get(path)).raise_for_status()
            times.append((time.perf_counter() - began) * 1000)
    took = statistics.median(times)
    print(f"{name:34} {took:9.1f} ms per request{kept(took, MILLISECONDS, 'ms') if name in BOUNDED else ''}")
    for statement, parameters in seen:
        kind = "count" if "count(*)" in statement else "rows"
        with contextlib.suppress(TimeoutError):
            print(f"    {kind:6}{await explain(app, statement, parameters)}", flush=True)


async def store_in_bulk(client: httpx2.AsyncClient) -> None:
    body = {"items": [{"name": f"Bulk {number}", "price": "1.50"} for number in range(BATCH)]}
    began = time.perf_counter()
    for _ in range(BATCHES):
        (await client.post("/api/v2/store/items/bulk", json=body)).raise_for_status()
    took = time.perf_counter() - began
    print(f"\nPOST /bulk, {BATCH} at a time, audited: {BATCH * BATCHES / took:,.0f} items/s")


async def measure(url: str, rows: int) -> None:
    app = create_app(settings_for(url, security={"principal_cache_seconds": 300}, cache={"enabled": False}))
    async with app.router.lifespan_context(app):
        database = app.state.database
        async with database.session() as session:
            began = time.perf_counter()
            await (await session.connection()).run_sync(lambda connection: fill(connection, rows))
            user = User(email=ADMIN, role="admin", password_hash=PASSWORD_HASH)
            session.add(user)
            await session.flush()
            session.add(session_of(user))
            await session.commit()
            print(f"{rows:,} items filled by SQL in {time.perf_counter() - began:.0f} s\n", flush=True)
        async with database.engine.connect() as connection:
            automatic = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await automatic.execute(text("VACUUM ANALYZE items, users"))
        middle = rows // 2
        values = {"middle": middle, "cursor": encode_cursor(middle), "page": max(1, middle // 100)}
        async with new_client(app, headers={"Authorization": f"Bearer {token_for(app, user)}"}) as client:
            for name, path in PATHS.items():
                await report(app, client, name, path.format(**values))
            async with new_client(app, headers={"Sec-Fetch-Site": "same-origin"}) as browser:
                await browser.post("/admin/login", data={"username": user.email, "password": PASSWORD})
                for name, path in PAGES.items():
                    await report(app, browser, name, path.format(**values))
            await store_in_bulk(client)


def export(url: str) -> None:
    """All items, from a server of its own, whose memory is looked at meanwhile."""
    with running_server(DATABASE_URL=url) as base:
        headers = {"Sec-Fetch-Site": "same-origin", "Accept-Encoding": "identity"}
        with httpx2.Client(base_url=base, headers=headers, timeout=LONGEST) as browser:
            browser.post("/admin/login", data={"username": ADMIN, "password": PASSWORD})
            browser.get("/admin/item/export/csv?search=nothing")
            port = browser.base_url.port or 0
            idle = peak = memory_of(port)
            for kind in EXPORTS:
                size, began = 0, time.perf_counter()
                with browser.stream("GET", f"/admin/item/export/{kind}") as answer:
                    answer.raise_for_status()
                    for chunk in answer.iter_raw(2**20):
                        size += len(chunk)
                        peak = max(peak, memory_of(port))
                took, more = time.perf_counter() - began, peak - idle
                verdict = kept(more, MEGABYTES, "MB")
                print(
                    f"export as {kind}: {size / 2**20:.0f} MB in {took:.0f} s, {more:.0f} MB over idle{verdict}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="items in the table (default: a million)")
    parser.add_argument("--database", default="", help="a PostgreSQL server on which databases may be made")
    chosen = parser.parse_args()
    os.environ["DATABASE__COMMAND_TIMEOUT"] = "300"  # filling the table is one statement
    with contextlib.ExitStack() as stack:
        if chosen.database:
            os.environ["TEST_POSTGRESQL_URL"] = chosen.database
        else:
            start_postgresql(stack.callback)
        url = stack.enter_context(temporary_database("postgresql"))
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        asyncio.run(measure(url, chosen.rows))
        export(url)


if __name__ == "__main__":
    main()
