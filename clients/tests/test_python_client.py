"""The Python client as its users have it, against a live server. `./scripts/check-clients` runs this.

The server is at CLIENTS_TEST_URL; CLIENTS_TEST_ADMIN is the password of admin@example.com.
"""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import mainstay_client
import pytest
from mainstay_client import ApiClient, Configuration, ItemIn, ItemPatch, Signup, UsersRole
from mainstay_client.exceptions import (
    ApiException,
    BadRequestException,
    ConflictException,
    ForbiddenException,
    NotFoundException,
    UnauthorizedException,
    UnprocessableEntityException,
)

ROOT = Path(__file__).resolve().parents[2]
URL = os.environ["CLIENTS_TEST_URL"]
PASSWORD = "correct horse battery staple"


def unique(prefix: str) -> str:
    return f"{prefix}-{secrets.token_hex(4)}"


@contextmanager
def connected(version: str) -> Iterator[SimpleNamespace]:
    """A stranger's view of one version; `sign_in` makes it a person's."""
    configuration = Configuration(host=URL)
    with ApiClient(configuration) as client:
        auth, items, users = (
            getattr(mainstay_client, f"{part}{version}Api")(client) for part in ("Auth", "Items", "Users")
        )

        def sign_in(email: str, password: str = PASSWORD, **options: str) -> None:
            configuration.access_token = auth.create_token(email, password, **options).access_token

        yield SimpleNamespace(client=client, auth=auth, items=items, users=users, sign_in=sign_in)


@pytest.fixture(params=["V1", "V2"], scope="module")
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def api(version: str) -> Iterator[SimpleNamespace]:
    with connected(version) as api:
        yield api


@pytest.fixture(scope="module")
def mine(version: str) -> Iterator[SimpleNamespace]:
    """The API as somebody sees it who has just signed up."""
    with connected(version) as api:
        email = f"{unique('ada')}@example.com"
        api.me = api.auth.signup(Signup(email=email, password=PASSWORD, full_name="Ada Lovelace"))
        api.sign_in(email)
        yield api


@pytest.fixture(scope="module")
def admin(version: str) -> Iterator[SimpleNamespace]:
    with connected(version) as api:
        api.sign_in("admin@example.com", os.environ["CLIENTS_TEST_ADMIN"])
        yield api


@pytest.mark.parametrize("page", ["clients/python/README.md", "docs/how-to/clients.md"])
def test_what_the_page_shows_works(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = "\n".join(re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.DOTALL | re.MULTILINE))
    shown = shown.replace("https://api.example.com", URL).replace("ada@", f"{unique('ada')}@")
    exec(compile(shown, page, "exec"), {})  # noqa: S102  the point of it
    printed = capsys.readouterr().out
    assert printed.startswith("412 ")
    assert "Teapot: 18.50" in printed


def test_the_package_has_the_version_of_the_app() -> None:
    assert mainstay_client.__version__ == os.environ["CLIENTS_TEST_VERSION"]


def test_who_signs_up_can_sign_in_and_is_known(mine: SimpleNamespace) -> None:
    me = mine.auth.read_me()
    assert (me.id, me.email, me.full_name, me.role) == (mine.me.id, mine.me.email, "Ada Lovelace", "user")
    assert "items:write" in me.permissions
    assert abs(datetime.now(UTC) - me.created_at) < timedelta(minutes=1)


def test_a_token_may_be_good_for_less(mine: SimpleNamespace, version: str) -> None:
    with connected(version) as reader:
        reader.sign_in(mine.me.email, grant_type="password", scope="items:read")
        reader.items.list_items()
        with pytest.raises(ForbiddenException) as refused:
            reader.items.create_item(ItemIn(name="Teapot", price="19.99"))
    assert refused.value.data.error.details == {"missing": ["items:write"]}


def test_an_item_keeps_its_money_its_text_and_its_moments(mine: SimpleNamespace) -> None:
    name, description = "Teekännchen 🫖 日本語", 'zweizeilig:\n"quoted" \\ & <b>'
    item = mine.items.create_item(ItemIn(name=name, description=description, price="9999999999.99", stock=3))
    assert item == mine.items.read_item(item.id)
    assert (item.name, item.description, item.price, item.stock) == (name, description, "9999999999.99", 3)
    assert item.owner_id == mine.me.id
    assert item.created_at.utcoffset() == timedelta(0)
    found = mine.items.list_items(q="Teekännchen 🫖 日本語").items
    assert item in found


def test_a_created_item_has_a_location_and_an_etag(mine: SimpleNamespace, version: str) -> None:
    answer = mine.items.create_item_with_http_info(ItemIn(name="Teapot", price="19.99"))
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/api/{version.lower()}/store/items/{answer.data.id}"
    assert answer.headers["etag"].startswith(f'"{answer.data.version}-')


def test_the_cursor_leads_through_all_items_once(mine: SimpleNamespace) -> None:
    name = unique("cursor")
    made = [mine.items.create_item(ItemIn(name=f"{name} {n}", price="1")).id for n in range(7)]
    seen, cursor, slices = [], None, 0
    while slices < 10:
        slice_ = mine.items.list_items(q=name, limit=3, cursor=cursor)
        seen += [item.id for item in slice_.items]
        slices += 1
        cursor = slice_.next
        if cursor is None:
            break
    assert (seen, slices) == (made[::-1], 3)


def test_numbered_pages_have_a_total(mine: SimpleNamespace) -> None:
    name = unique("pages")
    made = [mine.items.create_item(ItemIn(name=f"{name} {n}", price="1")).id for n in range(5)]
    pages = [mine.items.page_items(q=name, page=number, page_size=2) for number in (1, 2, 3, 4)]
    assert [item.id for page in pages for item in page.items] == made[::-1]
    assert {(page.total, page.pages, page.page_size) for page in pages} == {(5, 3, 2)}


def test_if_match_lets_the_first_edit_through_and_refuses_the_stale_one(mine: SimpleNamespace) -> None:
    item = mine.items.create_item(ItemIn(name="Teapot", price="19.99", stock=3))
    tag = mine.items.read_item_with_http_info(item.id).headers["etag"]
    changed = mine.items.patch_item(item.id, ItemPatch(price="18.50"), if_match=tag)
    assert (changed.price, changed.name, changed.stock) == ("18.50", "Teapot", 3)
    with pytest.raises(ApiException) as stale:
        mine.items.put_item(item.id, ItemIn(name="Other", price="1"), if_match=tag)
    assert stale.value.status == 412
    assert stale.value.data.error.code == "precondition_failed"
    assert stale.value.data.error.details == {"current_version": changed.version}
    assert mine.items.read_item(item.id) == changed


def test_a_deleted_item_is_gone(mine: SimpleNamespace) -> None:
    item = mine.items.create_item(ItemIn(name="Teapot", price="19.99"))
    answer = mine.items.delete_item_with_http_info(item.id, if_match=f'"{item.version}"')
    assert (answer.status_code, answer.data) == (204, None)
    with pytest.raises(NotFoundException) as gone:
        mine.items.read_item(item.id)
    body = gone.value.data
    assert (body.error.code, body.error.message) == ("not_found", "There is no such item")
    assert body.path.endswith(f"/store/items/{item.id}")
    assert body.request_id == gone.value.headers["X-Request-ID"]


def test_strangers_are_told_to_sign_in(api: SimpleNamespace) -> None:
    with pytest.raises(UnauthorizedException) as refused:
        api.items.list_items()
    assert refused.value.data.error.code == "unauthorized"
    assert refused.value.headers["WWW-Authenticate"] == "Bearer"
    with pytest.raises(UnauthorizedException):
        api.sign_in("nobody@example.com")


def test_what_is_not_permitted_says_what_is_missing(mine: SimpleNamespace) -> None:
    with pytest.raises(ForbiddenException) as refused:
        mine.users.list_users()
    assert refused.value.data.error.details == {"missing": ["users:read"]}


def test_unacceptable_values_are_listed_by_field(mine: SimpleNamespace) -> None:
    with pytest.raises(UnprocessableEntityException) as refused:
        mine.auth.signup(Signup(email="nobody", password="short"))
    fields = {line["field"] for line in refused.value.data.error.details}
    assert fields == {"body.email"}
    with pytest.raises(BadRequestException) as refused_cursor:
        mine.items.list_items(cursor="none of yours")
    assert refused_cursor.value.data.error.code == "bad_request"


def test_a_taken_address_is_a_conflict(mine: SimpleNamespace) -> None:
    with pytest.raises(ConflictException) as refused:
        mine.auth.signup(Signup(email=mine.me.email, password=PASSWORD))
    assert refused.value.data.error.code == "conflict"


def test_the_client_itself_refuses_what_the_document_rules_out() -> None:
    for wrong in (
        {"name": "", "price": "1"},
        {"name": "x", "price": "1.999"},
        {"name": "x", "price": "1", "stock": -1},
    ):
        with pytest.raises(ValueError, match="validation error"):
            ItemIn(**wrong)


def test_accounts_are_filtered_sorted_and_counted(admin: SimpleNamespace) -> None:
    prefix = unique("grace")
    for number in range(3):
        admin.auth.signup(Signup(email=f"{prefix}-{number}@example.com", password=PASSWORD))
    since = datetime.now(UTC) - timedelta(minutes=1)
    page = admin.users.list_users(q=prefix, role=UsersRole.USER, is_active=True, created_from=since, sort="-email")
    assert [user.email[-13] for user in page.items] == ["2", "1", "0"]
    assert admin.users.list_users(q=prefix, created_to=since).total == 0
    counted = admin.users.count_users_with_http_info(q=prefix)
    assert (counted.status_code, counted.data, counted.headers["x-total-count"]) == (200, None, "3")
    with pytest.raises(NotFoundException):
        admin.users.head_user(2_000_000_000)


def test_health_is_public_and_its_details_are_not(mine: SimpleNamespace) -> None:
    health = mainstay_client.HealthApi(mine.client)
    assert (health.live().status, health.ready().status) == ("ok", "ok")
    with pytest.raises(ForbiddenException):
        health.detailed()


def test_staff_see_the_details_of_health(admin: SimpleNamespace) -> None:
    details = mainstay_client.HealthApi(admin.client).detailed()
    assert {part.name: part.status for part in details.components}["database"] == "up"
    assert all(isinstance(part.latency_ms, float) for part in details.components)
