"""What would go with records that are deleted, read from the tables' foreign keys."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ForeignKey, Select, Table
from sqlmodel import SQLModel, func, select
from sqlmodel.ext.asyncio.session import AsyncSession

MOST = 10_000  # counted; beyond, it is told as "more than"


@dataclass(frozen=True)
class Consequence:
    """So many rows of a table would be deleted, lose what they refer to, or keep the records from being deleted."""

    table: str  # what people call it
    many: int
    happens: str
    blocks: bool

    def __str__(self) -> str:
        many = f"more than {MOST:,}" if self.many > MOST else f"{self.many:,}"
        return f"{self.table}: {many} {self.happens}"


def _referring(table: Table) -> Iterator[tuple[Column[int], ForeignKey]]:
    for other in SQLModel.metadata.sorted_tables:
        for column in other.columns:
            for key in column.foreign_keys:
                if key.column.table is table:
                    yield column, key


WORDS = {"CASCADE": "deleted as well", "SET NULL": "kept, without it"}


def _called(table: Table, names: Mapping[str, str]) -> str:
    return names.get(table.name) or table.name.replace("_", " ").capitalize()


async def consequences(
    session: AsyncSession, model: type[SQLModel], ids: Sequence[int] | Select[Any], names: Mapping[str, str]
) -> list[Consequence]:
    """One statement for each column that refers to this table; what refers to nobody is left out.

    `ids`: the records' keys, or what selects them. `names`: what the console calls tables.
    """
    found = []
    for column, key in _referring(model.__table__):  # type: ignore[attr-defined]
        some = select(column).where(column.in_(ids)).limit(MOST + 1).subquery()
        many = (await session.exec(select(func.count()).select_from(some))).one()
        rule = (key.ondelete or "RESTRICT").upper()
        if many:
            name = _called(column.table, names)
            found.append(Consequence(name, many, WORDS.get(rule, "in the way: they need it"), rule not in WORDS))
    return found
