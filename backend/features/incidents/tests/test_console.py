"""Incidents in the console, as a browser would use it."""

import html

from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.features.incidents.models import Incident
from backend.testing import Console, MakeUser

FORM = {"title": "Mail is late", "components": "redis, mail", "status": "investigating", "text": "It will come."}


async def the_one(session: AsyncSession) -> Incident:
    found = await session.exec(select(Incident).execution_options(populate_existing=True))
    return found.one()


async def test_an_incident_is_opened_and_updated(console: Console, make_user: MakeUser, session: AsyncSession) -> None:
    staff = await make_user("staff")
    browser = await console(staff.email)
    assert (await browser.post("/admin/incident/create", data=FORM)).status_code == 302
    incident = await the_one(session)
    assert (incident.components, incident.automatic) == (["redis", "mail"], False)
    edit = f"/admin/incident/edit/{incident.id}"
    page = (await browser.get(edit)).text
    assert 'value="redis, mail"' in page
    assert "It will come." not in page, "an update is written once"
    for more in ({"title": "Mail was late", "text": ""}, {"status": "resolved", "text": "<b>All</b> has been sent."}):
        assert (await browser.post(edit, data=FORM | {"title": "Mail was late"} | more)).status_code == 302
    incident = await the_one(session)
    told = [(one.status, one.text, one.by_id) for one in incident.updates]
    assert told == [
        ("resolved", "<b>All</b> has been sent.", staff.id),
        ("investigating", "It will come.", staff.id),
    ]
    assert (incident.title, incident.resolved_at is not None) == ("Mail was late", True)
    details = (await browser.get(f"/admin/incident/details/{incident.id}")).text
    assert html.escape("<b>All</b>") in details
    assert "Mail was late" in (await browser.get("/admin/incident/list?search=mail")).text


async def test_the_form_is_held_to_the_rules_of_the_api(console: Console, make_user: MakeUser) -> None:
    browser = await console((await make_user("staff")).email)
    for wrong in ({"title": ""}, {"components": "<b>"}, {"status": "fine"}):
        assert (await browser.post("/admin/incident/create", data=FORM | wrong)).status_code == 400
