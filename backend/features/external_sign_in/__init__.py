"""Sign-in with Google, GitHub, or any OpenID Connect issuer, and which of their identities belong to which account."""

from backend.core.feature import Feature
from backend.features.external_sign_in.admin import IdentityView
from backend.features.external_sign_in.routes import router
from backend.features.external_sign_in.service import unlink_all
from backend.features.external_sign_in.settings import ExternalSignInSettings
from backend.features.users.events import AccountReclaimed

feature = Feature(
    name="external_sign_in",
    summary="Sign-in with Google, GitHub, or any OpenID Connect issuer",
    needs=("users",),
    settings=ExternalSignInSettings,
    v1=router,
    on={AccountReclaimed: unlink_all},
    admin=(IdentityView,),
)
