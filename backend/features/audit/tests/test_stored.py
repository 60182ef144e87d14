"""What is stored without a flush is audited as what is added to the session."""

import secrets
from typing import Any

from sqlmodel import col, select

from backend.core.context import request_id
from backend.core.db import Database
from backend.core.writing_session import store, store_last
from backend.features.audit.models import AuditEntry
from backend.features.audit.values import REDACTED
from backend.features.users.models import User
from backend.main import create_app
from backend.testing import settings_for

REQUEST = "one-and-the-same"


async def entries(database: Database, email: str) -> list[dict[str, Any]]:
    async with database.session(reading=True) as session:
        user = (await session.exec(select(User).where(User.email == email))).one()
        query = select(AuditEntry).where(AuditEntry.subject_type == "users", AuditEntry.subject_id == str(user.id))
        query = query.where(AuditEntry.request_id == REQUEST)  # SQLite gives keys of deleted accounts to others
        found = (await session.exec(query.order_by(col(AuditEntry.id)))).all()
    told: list[dict[str, Any]] = [one.model_dump(exclude={"id", "at", "subject_id"}) for one in found]
    for one in told:
        assert one["changes"].pop("email") == [None, email]
        assert one["changes"].pop("created_at")[0] is None
    return told


async def test_the_entry_is_the_same(committed_database_url: str) -> None:
    database: Database = create_app(settings_for(committed_database_url)).state.database
    emails = [f"{secrets.token_hex(8)}@example.com" for _ in range(4)]
    token = request_id.set(REQUEST)
    try:
        for email in emails:  # the connection has worked by the second: that is stored the short way on PostgreSQL
            async with database.writing_session() as session:
                how = store_last if email == emails[-1] else store
                await how(session, User, email=email, full_name="Ada", password_hash="a secret")
                await session.commit()
        async with database.session() as session:
            session.add(User(email=(last := f"{secrets.token_hex(8)}@example.com"), full_name="Ada", password_hash="s"))
            await session.commit()
    finally:
        request_id.reset(token)
    told = [await entries(database, email) for email in (*emails, last)]
    await database.close()
    assert len(told[0]) == 1
    assert told[0][0]["changes"]["password_hash"] == [None, REDACTED]
    assert all(one == told[0] for one in told)


async def test_what_is_taken_back_leaves_no_entry(committed_database_url: str) -> None:
    database: Database = create_app(settings_for(committed_database_url)).state.database
    kept, gone = (f"{secrets.token_hex(8)}@example.com" for _ in range(2))
    async with database.writing_session() as session:
        await store(session, User, email=kept, password_hash="!")
        await session.commit()
    async with database.writing_session() as session:
        await store(session, User, email=gone, password_hash="!")
    async with database.session(reading=True) as session:
        newest = select(AuditEntry).order_by(col(AuditEntry.id).desc()).limit(20)
        found = [one.changes.get("email") for one in (await session.exec(newest)).all()]
    await database.close()
    assert [None, kept] in found
    assert [None, gone] not in found
