"""The audit log in the console: to read."""

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from markupsafe import Markup

from backend.core.auth import Rank
from backend.core.console import ConsoleView, show_nothing
from backend.core.console_filters import Begins, DateRange, Filter, Related
from backend.features.audit.models import AuditEntry
from backend.features.audit.values import REDACTED


def _text(value: Any) -> Markup:
    if value is None:
        return show_nothing(None)
    return Markup("{}").format(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def show_names(entry: AuditEntry, _name: str) -> Markup:
    """In the list: which fields changed, or what the event tells."""
    if entry.changes:
        return Markup("{}").format(", ".join(entry.changes))
    pairs = [f"{name}: {value}" for name, value in entry.details.items() if value is not None]
    return Markup("{}").format(", ".join(pairs)) if pairs else show_nothing(None)


def show_changes(entry: AuditEntry, _name: str) -> Markup:
    """Field by field, what it held before → after."""
    line = Markup("<li><strong>{}</strong>: <del>{}</del> → <ins>{}</ins></li>")
    secret = Markup("<li><strong>{}</strong>: changed, kept secret</li>")
    lines = [
        secret.format(name) if REDACTED in pair else line.format(name, *map(_text, pair))
        for name, pair in entry.changes.items()
    ]
    return Markup("<ul>{}</ul>").format(Markup("").join(lines)) if lines else show_nothing(None)


def show_details(entry: AuditEntry, _name: str) -> Markup:
    lines = [Markup("<li><strong>{}</strong>: {}</li>").format(name, _text(it)) for name, it in entry.details.items()]
    return Markup("<ul>{}</ul>").format(Markup("").join(lines)) if lines else show_nothing(None)


def show_actor(entry: AuditEntry, _name: str) -> str:
    return entry.who


def show_subject(entry: AuditEntry, _name: str) -> str:
    return f"{entry.subject_type} {entry.subject_id}".strip()


class AuditView(ConsoleView, model=AuditEntry):
    """Nothing is written here: entries are never changed, and only time deletes them."""

    scope, sees = "audit", Rank.ADMIN
    belongs_to: ClassVar[Mapping[Any, str]] = {AuditEntry.actor_id: "user"}
    name, name_plural = "Audit entry", "Audit log"
    filters: ClassVar[tuple[Filter, ...]] = (
        Begins(AuditEntry.action),
        Related(AuditEntry.actor_id, "user", "Who"),
        Related(AuditEntry.impersonator_id, "user", "Impersonated by"),
        DateRange(AuditEntry.at, "When"),
    )
    icon = "fa-solid fa-clock-rotate-left"
    column_list: ClassVar[list[Any]] = [
        AuditEntry.id,
        AuditEntry.action,
        AuditEntry.at,
        AuditEntry.actor_name,
        AuditEntry.subject_id,
        AuditEntry.changes,
    ]
    column_details_list: ClassVar[list[Any]] = [
        *column_list,
        AuditEntry.details,
        AuditEntry.actor_id,
        AuditEntry.impersonator_id,
        AuditEntry.via,
        AuditEntry.credential,
        AuditEntry.address,
        AuditEntry.user_agent,
        AuditEntry.request_id,
    ]
    column_searchable_list: ClassVar[list[Any]] = [
        AuditEntry.action,
        AuditEntry.actor_name,
        AuditEntry.subject_id,
        AuditEntry.address,
        AuditEntry.request_id,
    ]
    column_sortable_list: ClassVar[list[Any]] = [AuditEntry.id, AuditEntry.action, AuditEntry.at, AuditEntry.actor_name]
    column_formatters: ClassVar[dict[Any, Any]] = {
        AuditEntry.actor_name: show_actor,
        AuditEntry.subject_id: show_subject,
        AuditEntry.changes: show_names,
    }
    column_formatters_detail: ClassVar[dict[Any, Any]] = column_formatters | {
        AuditEntry.changes: show_changes,
        AuditEntry.details: show_details,
    }
    column_labels: ClassVar[dict[Any, str]] = {
        "id": "ID",
        "at": "When",
        "action": "Action",
        "actor_name": "Who",
        "actor_id": "Account",
        "impersonator_id": "Impersonated by",
        "subject_id": "What",
        "changes": "Changes",
        "details": "Details",
        "via": "By",
        "credential": "Session or key",
        "address": "Address",
        "user_agent": "Device",
        "request_id": "Request",
    }
