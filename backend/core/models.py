"""What every editable table has: a key, times, and a version that makes concurrent edits visible."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Integer
from sqlalchemy.orm import declared_attr
from sqlmodel import Field, SQLModel


def utc_now() -> datetime:
    """Now, aware, in UTC, to the second: MySQL keeps no more, and all databases shall agree."""
    return datetime.now(UTC).replace(microsecond=0)


# Any text, compared to the letter as on the other databases; MySQL's default depends on the server.
TABLE_OPTIONS = {"mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


class Record(SQLModel):
    """Base of editable tables. `version` starts at 1 and grows with every UPDATE; a clash is StaleDataError."""

    __table_args__ = TABLE_OPTIONS

    id: int | None = Field(default=None, primary_key=True)
    created_at: datetime = Field(default_factory=utc_now, nullable=False)
    updated_at: datetime = Field(default_factory=utc_now, nullable=False, sa_column_kwargs={"onupdate": utc_now})
    version: int = Field(default=1, sa_type=Integer, nullable=False)

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:  # noqa: N805
        return {"version_id_col": cls.__table__.c.version}  # type: ignore[attr-defined]
