"""Demo accounts."""

from collections.abc import Callable

from sqlmodel import Session, func, select

from backend.features.users.models import User

# No password fits this: demo accounts are there to be looked at, not to be signed in to.
UNUSABLE = "!"
GIVEN = ("Ada", "Grace", "Alan", "Edsger", "Barbara", "Donald", "Katherine", "Linus", "Margaret", "Tim")
FAMILY = ("Archer", "Baker", "Carter", "Dyer", "Fletcher", "Mason", "Potter", "Sawyer", "Turner", "Weaver")


def seed(session: Session, count: int, advance: Callable[[int], object]) -> None:
    """Add `count` accounts named demo<N>@example.com, going on after those there are."""
    first = session.exec(select(func.count()).select_from(User)).one() + 1
    for number in range(first, first + count):
        name = f"{GIVEN[number % len(GIVEN)]} {FAMILY[number // len(GIVEN) % len(FAMILY)]}"
        session.add(User(email=f"demo{number}@example.com", full_name=name, password_hash=UNUSABLE))
        advance(1)
    session.flush()
