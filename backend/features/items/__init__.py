"""The store's items: the sample domain, and the example to copy for a feature of your own."""

from backend.core.cache import warms
from backend.core.feature import Feature
from backend.features.items.admin import ItemView
from backend.features.items.events import ItemPurchased
from backend.features.items.figures import CREATED, PURCHASES
from backend.features.items.home import PANEL
from backend.features.items.housekeeping import lifespan
from backend.features.items.permissions import PERMISSIONS
from backend.features.items.routes import list_items, router
from backend.features.items.routes_v2 import router as v2
from backend.features.items.seed import seed
from backend.features.items.service import forget_owner
from backend.features.items.settings import ItemsSettings
from backend.features.users.events import AccountDeleted

feature = Feature(
    name="items",
    summary="The store's items",
    needs=("users",),
    v1=router,
    v2=v2,
    settings=ItemsSettings,
    lifespan=lifespan,
    on={AccountDeleted: forget_owner, ItemPurchased: PURCHASES.hear()},
    permissions=PERMISSIONS,
    admin=(ItemView,),
    home=(PANEL,),
    figures=(CREATED.figure, PURCHASES.figure),
    seed=seed,
    warm=(warms(list_items, "/api/v1/store/items"),),
)
