"""What the second factor adds to every way in: tokens, the console, another issuer's sign-in."""

from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.auth import Rank, granted
from backend.core.errors import SecondFactorRequired
from backend.core.models import key_of
from backend.features.two_factor import service
from backend.features.two_factor.proof import locked, take
from backend.features.two_factor.settings import TwoFactorSettings
from backend.features.users.events import AccountReclaimed, IdentityProven, PermissionsAsked
from backend.features.users.permissions import CONSOLE


async def ask_for_code(session: AsyncSession, event: IdentityProven) -> None:
    """Nobody who has a second factor gets in without it."""
    secret = await locked(session, key_of(event.user))
    if secret is None or secret.confirmed_at is None:
        return
    if not event.code.strip():
        raise SecondFactorRequired
    await take(session, secret, event.code)


async def hold_back(session: AsyncSession, event: PermissionsAsked) -> None:
    """Where it is required, who has none may do what an ordinary account may, and enter the console to get one.

    Whatever gives them more, their rank or a role: this runs after what adds to `held`.
    """
    if not TwoFactorSettings.current().required_for_staff:
        return
    ordinary = granted(session.info["permissions"], Rank.USER)
    if not event.held <= ordinary and not await service.is_enabled(session, event.user_id):
        event.withheld.update(event.held - ordinary - {CONSOLE})
        event.held.intersection_update(ordinary | {CONSOLE})


async def close(session: AsyncSession, event: AccountReclaimed) -> None:
    """A second factor that a stranger set up would keep the owner out."""
    await service.remove(session, event.user_id)
