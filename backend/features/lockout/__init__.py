"""Guessing passwords gets slower: a growing delay per account and address, per account, and per address.

A stranger cannot lock anybody out for good: every delay ends by itself, and where people have signed in lately, only
wrong passwords from there count against them.
"""

from backend.core.feature import Feature
from backend.features.lockout.admin import DelayView
from backend.features.lockout.events import SignInDelayed
from backend.features.lockout.figures import LOCKOUTS
from backend.features.lockout.housekeeping import lifespan
from backend.features.lockout.permissions import PERMISSIONS
from backend.features.lockout.routes import router
from backend.features.lockout.service import check, count, start_again, succeed
from backend.features.lockout.settings import LockoutSettings
from backend.features.users.events import IdentityProven, PasswordChanged, SignInAttempted, SignInFailed

feature = Feature(
    name="lockout",
    summary="Growing delays for those who guess passwords",
    needs=("users",),
    settings=LockoutSettings,
    v1=router,
    lifespan=lifespan,
    on={
        SignInAttempted: check,
        SignInFailed: count,
        IdentityProven: succeed,
        PasswordChanged: start_again,
        SignInDelayed: LOCKOUTS.hear(),
    },
    permissions=PERMISSIONS,
    admin=(DelayView,),
    figures=(LOCKOUTS.figure,),
)
