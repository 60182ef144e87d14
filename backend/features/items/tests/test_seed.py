"""Demo items."""

from sqlmodel import func, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.features.items.models import Item
from backend.features.items.seed import BATCH, seed


async def test_seeding_adds_as_many_as_asked_for(session: AsyncSession) -> None:
    advances: list[int] = []
    before = (await session.exec(select(func.count()).select_from(Item))).one()
    await session.run_sync(lambda sync: seed(sync, BATCH + 5, advances.append))  # type: ignore[arg-type]
    assert (await session.exec(select(func.count()).select_from(Item))).one() == before + BATCH + 5
    assert advances == [BATCH, 5]
