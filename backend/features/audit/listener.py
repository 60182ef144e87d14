"""What writes the log: a listener on the flushes of the app's sessions, and a handler of its security events.

Both write in the session's own transaction: an entry is stored exactly when what it tells of is. Bulk statements
(`session.exec(update(…))`) pass by the listener: whoever writes one that matters emits an event.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from sqlalchemy import Column, Insert, event, insert
from sqlalchemy.orm import Mapper, class_mapper, object_mapper
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.orm.attributes import get_history, instance_dict
from sqlalchemy.orm.base import PASSIVE_NO_INITIALIZE
from sqlmodel import SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core import context
from backend.core.auth import current_principal
from backend.core.events import SecurityEvent
from backend.core.masking import masked
from backend.core.models import SecretText, utc_now
from backend.core.writing_session import Along, RecordStoring
from backend.features.audit.models import AuditEntry
from backend.features.audit.values import REDACTED, UNKNOWN, shown
from backend.features.users.models import User

Changes = dict[str, list[Any]]


def circumstances() -> dict[str, Any]:
    """Who is doing something now, from where. `anonymous`: in a request, and not known (yet). `system`: no request."""
    principal, address, request_id = current_principal(), context.address(), context.request_id.get() or ""
    nobody = "anonymous" if address or request_id else "system"
    actor = principal.actor if principal else None
    return {
        "at": utc_now(),
        "actor_id": principal.id if principal else None,
        "actor_name": principal.name[:254] if principal else "",
        "impersonator_id": actor.id if actor else None,
        "impersonator_name": actor.name[:254] if actor else None,
        "via": principal.via if principal else nobody,
        "credential": principal.credential if principal else None,
        "address": address,
        "user_agent": context.user_agent(),
        "request_id": request_id[:64],
    }


async def note_event(session: AsyncSession, happened: SecurityEvent) -> None:
    """Write a security event down; the commit stores it. An address that nobody has is masked."""
    details = {name: shown(value) for name, value in happened.details().items()}
    if happened.user_id is None and isinstance(details.get("email"), str):
        details["email"] = masked(details["email"])
    account: dict[str, Any] = {"subject_type": User.__tablename__, "subject_id": str(happened.user_id)}
    subject = account if happened.user_id is not None else {}
    session.add(AuditEntry(action=happened.action, details=details, **subject, **circumstances()))


@cache
def _columns(mapper: Mapper[Any]) -> tuple[tuple[str, bool], ...]:
    """The attributes worth recording, and whether each is a secret. Not the key, nor what every UPDATE sets itself."""
    return tuple(
        (name, isinstance(column.type, SecretText))
        for name, column in mapper.columns.items()
        if isinstance(column, Column)  # else an expression, which nobody writes
        and not column.primary_key
        and column.onupdate is None
        and column is not mapper.version_id_col
    )


def _pair(before: Any, after: Any, *, secret: bool) -> list[Any]:
    if secret:
        return [None if one is None else REDACTED for one in (before, after)]
    return [shown(before), shown(after)]


def _edited(record: Any, mapper: Mapper[Any]) -> Changes:
    changes = {}
    for name, secret in _columns(mapper):
        history = get_history(record, name, PASSIVE_NO_INITIALIZE)
        if history.added or history.deleted:
            before = history.deleted[0] if history.deleted else UNKNOWN
            changes[name] = _pair(before, history.added[0] if history.added else None, secret=secret)
    return changes


def _whole(held: Mapping[str, Any], mapper: Mapper[Any], *, gone: bool) -> Changes:
    values = ((name, held.get(name), secret) for name, secret in _columns(mapper))
    return {
        name: _pair(value, None, secret=secret) if gone else _pair(None, value, secret=secret)
        for name, value, secret in values
        if value is not None
    }


def _written(session: OrmSession) -> Iterator[tuple[str, Any, Mapper[Any], Changes]]:
    """Verb, record, mapper and changes of all that this flush has written."""
    groups = (("created", session.new), ("updated", session.dirty), ("deleted", session.deleted))
    for verb, records in groups:
        for record in records:
            mapper = object_mapper(record)
            if not _is_audited(mapper.class_):
                continue
            held = instance_dict(record)
            changes = _edited(record, mapper) if verb == "updated" else _whole(held, mapper, gone=verb == "deleted")
            if changes or verb != "updated":
                yield verb, record, mapper, changes


def _is_audited(model: type) -> bool:
    return getattr(model, "__audited__", True)


def _entry(verb: str, mapper: Mapper[Any], key: Iterable[Any], changes: Changes, now: dict[str, Any]) -> dict[str, Any]:
    table = str(mapper.local_table)
    subject = {"subject_type": table, "subject_id": ",".join(map(str, key))[:100]}
    return {"action": f"{table}.{verb}", "changes": changes, "details": {}, **subject, **now}


async def note_storing(_session: AsyncSession, storing: RecordStoring) -> None:
    """Have a record that is stored past the flush written down by the same statement."""
    if _is_audited(storing.model):
        mapper = class_mapper(storing.model)
        entry = _entry("created", mapper, (), _whole(storing.values, mapper, gone=False), circumstances())
        storing.along.append(Along(model=AuditEntry, values=entry, refers="subject_id"))


@cache
def _insert() -> Insert:
    return insert(SQLModel.metadata.tables["audit_log"])


@event.listens_for(OrmSession, "after_flush")
def note_flush(session: OrmSession, _context: object) -> None:
    """One INSERT for all that a flush has written. New records have their keys by now; all still tell what changed."""
    handlers = session.info.get("handlers", {})
    if note_event not in handlers.get(SecurityEvent, ()):
        return  # not a session of an app that has this feature
    now: dict[str, Any] = {}
    entries = []
    for verb, record, mapper, changes in _written(session):
        now = now or circumstances()
        entries.append(_entry(verb, mapper, mapper.primary_key_from_instance(record), changes, now))
    if entries:
        session.connection().execute(_insert(), entries if len(entries) > 1 else entries[0])  # one takes a shorter way
