"""A second factor for sign-in: codes of an authenticator app (TOTP, RFC 6238), and recovery codes if it is lost."""

from backend.core.feature import Feature
from backend.features.two_factor.actions import REMOVE
from backend.features.two_factor.console import SecondFactorPage
from backend.features.two_factor.hooks import ask_for_code, close, hold_back
from backend.features.two_factor.permissions import PERMISSIONS
from backend.features.two_factor.routes import router
from backend.features.two_factor.settings import TwoFactorSettings
from backend.features.users.events import AccountReclaimed, IdentityProven, PermissionsAsked

feature = Feature(
    name="two_factor",
    summary="Second factor: authenticator apps (TOTP) and recovery codes",
    needs=("users",),
    settings=TwoFactorSettings,
    v1=router,
    on={IdentityProven: ask_for_code, PermissionsAsked: hold_back, AccountReclaimed: close},
    permissions=PERMISSIONS,
    admin=(SecondFactorPage,),
    record_actions={"user": (REMOVE,)},
)
