"""API keys: how services of one's own call the API, without a person who signs in."""

from backend.core.feature import Feature
from backend.features.api_keys.admin import ApiKeyView
from backend.features.api_keys.authority import SECURITY_SCHEMES, recognise_key
from backend.features.api_keys.permissions import PERMISSIONS
from backend.features.api_keys.routes import router
from backend.features.api_keys.service import revoke_all
from backend.features.api_keys.settings import ApiKeysSettings
from backend.features.api_keys.uses import lifespan
from backend.features.users.events import AccountReclaimed

feature = Feature(
    name="api_keys",
    summary="API keys for services",
    needs=("users",),
    settings=ApiKeysSettings,
    v1=router,
    lifespan=lifespan,
    authenticators=(recognise_key,),
    security_schemes=SECURITY_SCHEMES,
    on={AccountReclaimed: revoke_all},
    permissions=PERMISSIONS,
    admin=(ApiKeyView,),
)
