"""Who may see what others have begun. One's own is open to everybody in the console."""

from backend.core.auth import Permission, Rank

EVERYBODY = "console_jobs:everybody"
PERMISSIONS = (
    Permission(name=EVERYBODY, summary="See and cancel everybody's background actions", rank=Rank.ADMIN, console=True),
)
