"""Lists of the console: filters, pages, counts and searching, on the accounts' view."""

import html
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from sqlmodel.ext.asyncio.session import AsyncSession

from admin.tests.test_site import views_of
from backend.core import console_paging
from backend.core.models import utc_now
from backend.features.users.models import User
from backend.testing import Console, MakeUser

Statements = Callable[[], AbstractContextManager[list[str]]]


def rows(page: httpx2.Response) -> list[str]:
    """Who is listed, in this order."""
    return re.findall(r'name="pks" data-select value="\d+" aria-label="Select ([^"]+)"', page.text)


def links(page: httpx2.Response) -> dict[str, str]:
    """The page's First, Previous, Next and Last."""
    found = re.findall(r'<a class="page-link" href="([^"]+)">(\w+)</a>', page.text)
    return {label: html.unescape(url) for url, label in found}


def add(session: AsyncSession, name: str, **fields: Any) -> None:
    session.add(User(email=f"{name}@example.com", password_hash="!", **fields))


# --- filters -------------------------------------------------------------------------------------------------------

FOUND = {
    "f_role=staff": ["sue@example.com"],
    "f_is_active=no": ["off@example.com"],
    "f_email_verified_at=yes": ["off@example.com"],
    "f_created_at_from=2020-01-01&f_created_at_to=2020-01-01": ["off@example.com"],
    "f_created_at_to=2020-01-02": ["off@example.com", "sue@example.com"],
    "f_role=staff&f_is_active=no": [],
    "f_created_at_to=2020-01-02&search=sue": ["sue@example.com"],
    "f_role=&f_is_active=&f_created_at_from=": ["boss@example.com", "off@example.com", "sue@example.com"],
}


@pytest.fixture
async def browser(console: Console, make_user: MakeUser, session: AsyncSession) -> httpx2.AsyncClient:
    """An administrator's, with two more accounts."""
    admin = await make_user("admin", email="boss@example.com")
    last_second = datetime(2020, 1, 1, 23, 59, 59, tzinfo=UTC)
    add(session, "off", is_active=False, email_verified_at=utc_now(), created_at=last_second)
    add(session, "sue", role="staff", created_at=last_second + timedelta(seconds=1))
    await session.commit()
    return await console(admin.email)


@pytest.mark.parametrize("query", FOUND)
async def test_filters_narrow_the_list_down(browser: httpx2.AsyncClient, query: str) -> None:
    page = await browser.get(f"/admin/user/list?{query}")
    assert page.status_code == 200, page.text
    assert sorted(rows(page)) == FOUND[query]


async def test_what_is_filtered_is_said_and_can_be_cleared_one_by_one(browser: httpx2.AsyncClient) -> None:
    page = await browser.get("/admin/user/list?f_role=staff&f_created_at_from=2019-05-01&search=sue&sortBy=email")
    active = page.text.split('aria-label="Active filters"')[1].split("</ul>")[0]
    cleared = [html.unescape(url) for url in re.findall(r'href="([^"]+)"', active)]
    assert "Rank: Staff" in active
    assert "Created: from 2019-05-01" in active
    assert [url.split("?")[1] for url in cleared] == [
        "f_created_at_from=2019-05-01&search=sue&sortBy=email",
        "f_role=staff&search=sue&sortBy=email",
        "search=sue&sortBy=email",
    ]
    assert '<option value="staff" selected>' in page.text
    assert 'value="2019-05-01"' in page.text


async def test_where_nothing_matches_the_filters_the_page_says_how_to_go_on(browser: httpx2.AsyncClient) -> None:
    page = await browser.get("/admin/user/list?f_role=staff&f_is_active=no&sortBy=email")
    assert "Nothing matches these filters" in page.text
    assert re.search(r'href="http://localhost/admin/user/list\?sortBy=email">Clear them', page.text)


BAD = [
    "f_role=root",
    "f_role=%00",
    "f_role=%ff%fe",
    "f_is_active=maybe",
    "f_created_at_from=yesterday",
    "f_created_at_from=2026-02-31",
    "f_created_at_from=0001-01-01",
    "f_created_at_to=9999-12-31",
    "f_created_at_to=%D9%A2%D9%A0%D9%A2%D9%A6-01-01",
    "f_created_at_to=2026-01-01%00",
    "f_created_at_to=" + "9" * 5000,
]


@pytest.mark.parametrize("query", BAD)
async def test_what_no_filter_can_mean_is_refused_with_a_sentence(browser: httpx2.AsyncClient, query: str) -> None:
    page = await browser.get(f"/admin/user/list?{query}")
    assert page.status_code == 400
    assert re.search(r"choose one of the list|write a date such as 2026-01-31", page.text)


@pytest.mark.parametrize("key", ["7x", "0", "-1", "99999999999", "%00", "%EF%BC%97"])
async def test_the_key_of_a_related_record_is_a_number(browser: httpx2.AsyncClient, key: str) -> None:
    assert (await browser.get(f"/admin/user-session/list?f_user_id={key}")).status_code == 400
    assert (await browser.get("/admin/user-session/list?f_user_id=2147483647")).status_code == 200


# --- pages ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than four rows are many."""
    monkeypatch.setattr(console_paging, "EXACT_UP_TO", 4)


async def walked(browser: httpx2.AsyncClient, address: str, label: str) -> list[list[str]]:
    """Page after page by this link, as far as it goes."""
    pages = [await browser.get(address)]
    while label in (following := links(pages[-1])):
        pages.append(await browser.get(following[label]))
        assert pages[-1].status_code == 200
        assert len(pages) < 20
    return [rows(page) for page in pages]


@pytest.mark.parametrize("sort", ["", "sortBy=id", "sortBy=role&sort=desc", "sortBy=email", "sortBy=created_at"])
@pytest.mark.usefixtures("few")
async def test_a_long_list_is_walked_by_keyset_in_both_directions(
    console: Console, make_user: MakeUser, session: AsyncSession, sort: str
) -> None:
    browser = await console((await make_user("admin")).email)
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(11):
        role = "staff" if number % 3 else "user"
        add(session, f"n{number % 5}{number}", role=role, created_at=moment + timedelta(days=number % 4))
    await session.commit()
    whole = rows(await browser.get(f"/admin/user/list?{sort}&pageSize=100"))
    forwards = await walked(browser, f"/admin/user/list?{sort}&pageSize=5", "Next")
    assert [len(page) for page in forwards] == [5, 5, 2]
    assert list(chain(*forwards)) == whole
    first = await browser.get(f"/admin/user/list?{sort}&pageSize=5")
    last = await browser.get(links(first)["Last"])
    assert set(links(last)) == {"First", "Previous"}
    assert rows(last) == whole[-5:]
    backwards = await walked(browser, links(first)["Last"], "Previous")
    assert list(chain(*reversed(backwards))) == whole
    assert rows(await browser.get(links(last)["First"])) == whole[:5]
    assert re.search(r"5 of (about|more than) \d", last.text)


@pytest.mark.parametrize("sort", ["asc", "desc"])
@pytest.mark.usefixtures("few")
async def test_rows_without_a_value_have_their_place_in_a_long_list(
    app: FastAPI,
    console: Console,
    make_user: MakeUser,
    session: AsyncSession,
    monkeypatch: pytest.MonkeyPatch,
    sort: str,
) -> None:
    [view] = [one for one in views_of(app) if one.identity == "user"]
    monkeypatch.setattr(view, "_sort_fields", ["email_verified_at"])
    browser = await console((await make_user("admin")).email)
    for number in range(9):
        add(session, f"n{number}", email_verified_at=utc_now() + timedelta(days=number) if number % 2 else None)
    await session.commit()
    address = f"/admin/user/list?sortBy=email_verified_at&sort={sort}"
    whole = rows(await browser.get(f"{address}&pageSize=100"))
    assert len(whole) == 10
    assert list(chain(*await walked(browser, f"{address}&pageSize=3", "Next"))) == whole
    last = links(await browser.get(f"{address}&pageSize=3"))["Last"]
    assert list(chain(*reversed(await walked(browser, last, "Previous")))) == whole


def cursor(*parts: object) -> str:
    return urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


CURSORS = [
    "x",
    "%00",
    "A" * 3000,
    "9" * 4000,
    cursor(),
    cursor("after", "2026-01-01"),
    cursor("after", "2026-01-01T00:00:00", 7),
    cursor("after", "9999-12-31T23:59:59+00:00", 7),
    cursor("after", 7, 7),
    cursor("after", {}, 7),
    cursor("after", "2026-01-01T00:00:00+00:00", 0),
    cursor("after", "2026-01-01T00:00:00+00:00", True),
    cursor("after", "2026-01-01T00:00:00+00:00", 2**40),
    cursor("sideways", "2026-01-01T00:00:00+00:00", 7),
]


@pytest.mark.parametrize("at", CURSORS)
async def test_an_address_of_a_page_that_is_not_ours_is_refused(browser: httpx2.AsyncClient, at: str) -> None:
    page = await browser.get(f"/admin/user/list?sortBy=created_at&at={at}")
    assert page.status_code == 400
    assert "not one of ours" in page.text
    assert (await browser.get(f"/admin/user/list?sortBy=email&at={cursor('after', chr(0xD800), 7)}")).status_code == 400


async def test_where_the_rows_of_a_page_have_gone_the_first_one_is_shown(browser: httpx2.AsyncClient) -> None:
    page = await browser.get(f"/admin/user/list?sortBy=email&at={cursor('after', 'zzz', 7)}")
    assert rows(page)[0] == "boss@example.com"


async def test_a_short_list_has_numbers(console: Console, make_user: MakeUser, session: AsyncSession) -> None:
    browser = await console((await make_user("admin")).email)
    for number in range(59):
        add(session, f"n{number}")
    await session.commit()
    page = await browser.get("/admin/user/list?page=2")
    assert "26\N{EN DASH}50 of 60" in page.text
    assert re.findall(r'aria-label="Page (\d)"', page.text) == ["1", "2", "3"]
    assert links(page) == {}


@pytest.mark.parametrize("many", [5, 100])
async def test_a_list_takes_two_statements_whatever_its_size(
    console: Console, make_user: MakeUser, session: AsyncSession, statements: Statements, many: int
) -> None:
    """The count and the rows; who is signed in is known from the page before."""
    browser = await console((await make_user("admin")).email)
    for number in range(many):
        add(session, f"n{number}")
    await session.commit()
    await browser.get("/admin/")
    with statements() as seen:
        page = await browser.get("/admin/user/list?pageSize=100&f_role=user&sortBy=email")
    assert len(rows(page)) == many
    assert len(seen) == 2, seen


async def test_all_that_match_are_those_of_the_filters(browser: httpx2.AsyncClient) -> None:
    form = {"matching": "1", "query": "f_role=staff&at=last"}
    page = await browser.post("/admin/user/action/delete", data=form)
    assert re.findall(r'name="pks" value="(\d+)"', page.text)
    assert "sue@example.com" in page.text
    assert "off@example.com" not in page.text
    assert "boss@example.com" not in page.text.split("<main")[1]
    wrong = form | {"query": "f_role=root"}
    assert (await browser.post("/admin/user/action/delete", data=wrong)).status_code == 400
