"""Accounts: sign-up, tokens, the users resource, and the console's sign-in. The spine: other features may need it."""

from backend.core.feature import Feature
from backend.features.users.admin import SessionView, UserView
from backend.features.users.authority import recognise_bearer
from backend.features.users.console import ConsoleSessions
from backend.features.users.console_account import AccountPage
from backend.features.users.events import AccountCreated, RefreshTokenReplayed, SignedIn, SignInFailed
from backend.features.users.figures import REUSES, SIGN_INS, SIGN_UPS
from backend.features.users.home import PANEL
from backend.features.users.housekeeping import lifespan
from backend.features.users.permissions import PERMISSIONS
from backend.features.users.routes import router
from backend.features.users.seed import seed
from backend.features.users.settings import UsersSettings

feature = Feature(
    name="users",
    summary="Accounts, sign-in, sessions",
    settings=UsersSettings,
    v1=router,
    lifespan=lifespan,
    authenticators=(recognise_bearer,),
    on={
        SignedIn: SIGN_INS.hear("succeeded"),
        SignInFailed: SIGN_INS.hear("failed"),
        AccountCreated: SIGN_UPS.hear(),
        RefreshTokenReplayed: REUSES.hear(),
    },
    console_sign_in=ConsoleSessions(),
    permissions=PERMISSIONS,
    home=(PANEL,),
    admin=(UserView, SessionView, AccountPage),
    figures=(SIGN_INS.figure, SIGN_UPS.figure, REUSES.figure),
    seed=seed,
)
