"""Demo accounts."""

from collections.abc import Callable

from sqlmodel import Session, col, select

from backend.features.users.models import User
from backend.features.users.passwords import UNUSABLE

GIVEN = ("Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Katherine", "Linus", "Margaret", "Tim")
FAMILY = ("Archer", "Baker", "Carter", "Dyer", "Fletcher", "Mason", "Potter", "Sawyer", "Turner", "Weaver")


def seed(session: Session, count: int, advance: Callable[[int], object]) -> None:
    """Add `count` accounts named demo<N>@example.com, going on after those there are."""
    taken = session.exec(select(User.email).where(col(User.email).regexp_match(r"^demo[0-9]+@example\.com$"))).all()
    first = max((int(email.removeprefix("demo").split("@")[0]) for email in taken), default=0) + 1
    for number in range(first, first + count):
        name = f"{GIVEN[number % len(GIVEN)]} {FAMILY[number // len(GIVEN) % len(FAMILY)]}"
        # demo accounts are there to be looked at, not to be signed in to
        session.add(User(email=f"demo{number}@example.com", full_name=name, password_hash=UNUSABLE))
        advance(1)
    session.flush()
