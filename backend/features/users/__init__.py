"""Accounts: sign-up, tokens, the users resource, and the console's sign-in. The spine: other features may need it."""

from backend.core.feature import Feature
from backend.features.users.admin import UserView
from backend.features.users.console import ConsoleSessions
from backend.features.users.permissions import PERMISSIONS
from backend.features.users.routes import router
from backend.features.users.seed import seed
from backend.features.users.settings import UsersSettings
from backend.features.users.tokens import recognise_bearer

feature = Feature(
    name="users",
    summary="Accounts, sign-in, console sessions",
    settings=UsersSettings,
    v1=router,
    authenticators=(recognise_bearer,),
    console_sign_in=ConsoleSessions(),
    permissions=PERMISSIONS,
    admin=(UserView,),
    seed=seed,
)
