"""Incidents in the console: opening them, and telling people what is going on."""

from typing import Annotated, Any, ClassVar, get_args

from markupsafe import Markup
from pydantic import BeforeValidator, Field
from sqlmodel.ext.asyncio.session import AsyncSession
from wtforms import Field as FormField
from wtforms import SelectField, StringField, TextAreaField

from backend.core.auth import Principal, Rank
from backend.core.config import split_commas
from backend.core.console import ConsoleView, show_nothing, show_time
from backend.core.console_filters import Choice, DateRange, Filter, YesNo
from backend.core.schemas import Input
from backend.features.incidents import service
from backend.features.incidents.models import Incident
from backend.features.incidents.schemas import Components, Status, Text, Title


class IncidentForm(Input):
    """An incident as the console states it. A text, or another status, is a new update."""

    title: Title
    components: Annotated[Components, BeforeValidator(split_commas)] = Field(default_factory=list)
    status: Status = "investigating"
    text: Text = ""


def show_updates(incident: Incident, _name: str) -> Markup:
    if not incident.updates:
        return show_nothing(None)
    line = Markup("<p>{} <strong>{}</strong><br>{}</p>")
    return Markup("").join(line.format(show_time(one.at), one.status, one.text) for one in incident.updates)


def show_components(incident: Incident, _name: str) -> Markup | str:
    return ", ".join(incident.components) or show_nothing(None)


class IncidentView(ConsoleView, model=Incident):
    """Editing one with a text in the last field tells people something new."""

    scope, changes = "incidents", Rank.STAFF
    form_schema = IncidentForm
    filters: ClassVar[tuple[Filter, ...]] = (
        Choice(Incident.status, [(one, one.capitalize()) for one in get_args(Status)]),
        YesNo(Incident.automatic),
        DateRange(Incident.opened_at),
    )
    icon = "fa-solid fa-triangle-exclamation"
    column_list: ClassVar[list[Any]] = [
        Incident.id,
        Incident.title,
        Incident.status,
        Incident.component_names,
        Incident.opened_at,
        Incident.resolved_at,
        Incident.automatic,
    ]
    column_details_list: ClassVar[list[Any]] = [*column_list, "updates", Incident.updated_at, Incident.version]
    column_searchable_list: ClassVar[list[Any]] = [Incident.title, Incident.component_names]
    column_sortable_list: ClassVar[list[Any]] = [Incident.id, Incident.status, Incident.opened_at, Incident.resolved_at]
    column_formatters: ClassVar[dict[Any, Any]] = {Incident.component_names: show_components}
    column_formatters_detail: ClassVar[dict[Any, Any]] = {**column_formatters, "updates": show_updates}
    column_labels: ClassVar[dict[Any, str]] = {
        "id": "ID",
        "title": "Title",
        "status": "Status",
        "component_names": "Components",
        "opened_at": "Opened",
        "resolved_at": "Resolved",
        "automatic": "Opened by itself",
        "updates": "Updates",
        "updated_at": "Updated",
        "version": "Version",
    }
    form_columns: ClassVar[list[Any]] = [Incident.title]

    def extra_fields(self) -> dict[str, FormField]:
        attributes = {"class": "form-control", "autocomplete": "off"}
        statuses = [(one, one.capitalize()) for one in get_args(Status)]
        return {
            "components": StringField("Components", description="Separated by commas.", render_kw=attributes),
            "status": SelectField("Status", choices=statuses, render_kw={"class": "form-select"}),
            "text": TextAreaField(
                "New update", description="What everybody is told now.", render_kw={"class": "form-control", "rows": 4}
            ),
        }

    async def get_form_data_for_edit(self, obj: Any) -> dict[str, Any]:
        stored = {"components": ", ".join(obj.components), "status": obj.status, "text": ""}
        return await super().get_form_data_for_edit(obj) | stored

    async def create(self, session: AsyncSession, form: IncidentForm, caller: Principal) -> Incident:
        return await service.open_incident(session, by=caller.id, **form.model_dump())

    async def change(self, session: AsyncSession, record: Incident, form: IncidentForm, caller: Principal) -> Incident:
        tells = form.text or form.status != record.status
        await service.change_incident(session, record, title=form.title, components=form.components)
        if tells:
            await service.add_update(session, record, status=form.status, text=form.text, by=caller.id)
        return record
