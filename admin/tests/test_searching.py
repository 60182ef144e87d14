"""One search over all that a person may see."""

import re

import pytest

from backend.testing import Console, MakeUser


async def test_records_of_all_kinds_are_found_and_lead_to_their_pages(console: Console, make_user: MakeUser) -> None:
    users = [await make_user(email=f"grace{number}@example.com") for number in range(7)]
    browser = await console((await make_user("staff")).email)
    page = (await browser.get("/admin/search", params={"search": " GRACE "})).text
    assert len(re.findall(r"/admin/user/details/\d+", page)) == 5
    assert f"/admin/user/details/{users[-1].id}" in page
    assert 'href="http://localhost/admin/user/list?search=GRACE"' in page
    assert "Nothing contains it" in (await browser.get("/admin/search", params={"search": "zzz%"})).text


@pytest.mark.parametrize(("term", "status"), [("", 200), ("\x00", 400), ("x" * 101, 400), ("<b>", 200), ("%", 200)])
async def test_whatever_is_typed_has_an_answer(console: Console, make_user: MakeUser, term: str, status: int) -> None:
    browser = await console((await make_user("admin")).email)
    page = await browser.get("/admin/search", params={"search": term})
    assert page.status_code == status
    assert "<b>" not in page.text


async def test_what_may_not_be_listed_is_not_found(console: Console, make_user: MakeUser) -> None:
    staff, admin = await make_user("staff"), await make_user("admin", email="secret@example.com")
    browser = await console(staff.email)
    page = (await browser.get("/admin/search", params={"search": "secret"})).text
    assert f"/admin/user/details/{admin.id}" in page
    assert not re.findall(r"/admin/(?:audit-entry|api-key)/", page)
