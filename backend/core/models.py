"""What every editable table has: a key, times, and a version that makes concurrent edits visible."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import Dialect, Integer, String
from sqlalchemy.orm import declared_attr
from sqlalchemy.types import TypeDecorator
from sqlmodel import Field, SQLModel
from sqlmodel.sql.sqltypes import UTCDateTime


def utc_now() -> datetime:
    """Now, aware, in UTC, to the second: MySQL keeps no more, and all databases shall agree."""
    return datetime.now(UTC).replace(microsecond=0)


# Any text, compared to the letter as on the other databases; MySQL's default depends on the server.
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


class SecretText(TypeDecorator[str]):
    """A text that is kept from logs, exports and the audit log: password hashes, hashes of tokens, keys."""

    impl = String
    cache_ok = True


class StoredMoment(UTCDateTime):
    """A moment, aware and in UTC. asyncpg returns no other: to look at each again would cost a list a tenth."""

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        return None if dialect.driver == "asyncpg" else super().result_processor(dialect, coltype)


class Record(SQLModel):
    """Base of editable tables. `version` starts at 1 and grows with every UPDATE; a clash is StaleDataError."""

    __table_args__: ClassVar[Any] = TABLE_OPTIONS

    id: int | None = Field(default=None, primary_key=True)
    created_at: datetime = Field(default_factory=utc_now, sa_type=StoredMoment, nullable=False)
    updated_at: datetime = Field(
        default_factory=utc_now, sa_type=StoredMoment, nullable=False, sa_column_kwargs={"onupdate": utc_now}
    )
    version: int = Field(default=1, sa_type=Integer, nullable=False)

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:  # noqa: N805
        return {"version_id_col": cls.__table__.c.version}  # type: ignore[attr-defined]


class Recoverable(SQLModel):
    """Mixed into a table whose records a person may want back: deleting marks them, and housekeeping ends them later.

    Whoever reads such a table leaves out what is marked. An index on `deleted_at` is the table's own, of those marked.
    """

    deleted_at: datetime | None = Field(default=None, sa_type=StoredMoment, nullable=True)


def is_deleted(record: Any) -> bool:
    """Whether a record is marked as deleted; one that is simply there is not."""
    return getattr(record, "deleted_at", None) is not None


def key_of(record: Any) -> int:
    """The key of a record that is stored. RuntimeError for one that is not: it has none yet."""
    if record.id is None:
        raise RuntimeError(f"this {type(record).__name__} is not stored yet")
    return int(record.id)
