"""Demo accounts."""

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.features.users.models import User
from backend.features.users.passwords import verify_password
from backend.features.users.seed import seed


async def test_seeding_twice_adds_twice(session: AsyncSession) -> None:
    advances: list[int] = []
    for _ in range(2):
        await session.run_sync(lambda sync: seed(sync, 12, advances.append))  # type: ignore[arg-type]
    statement = select(User).where(col(User.email).startswith("demo"))
    people = (await session.exec(statement)).all()
    assert len(people) == len({person.email for person in people}) == sum(advances) == 24


async def test_nobody_can_sign_in_to_a_demo_account(session: AsyncSession) -> None:
    await session.run_sync(lambda sync: seed(sync, 1, lambda _: None))  # type: ignore[arg-type]
    person = (await session.exec(select(User).where(col(User.email).startswith("demo")))).one()
    assert await verify_password("", person.password_hash) == (False, None)
    assert await verify_password("!", person.password_hash) == (False, None)
