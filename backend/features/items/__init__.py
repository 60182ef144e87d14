"""The store's items: the sample domain, and the example to copy for a feature of your own."""

from backend.core.feature import Feature
from backend.features.items.admin import ItemView
from backend.features.items.permissions import PERMISSIONS
from backend.features.items.routes import router
from backend.features.items.seed import seed

feature = Feature(
    name="items",
    summary="The store's items",
    needs=("users",),
    v1=router,
    permissions=PERMISSIONS,
    admin=(ItemView,),
    seed=seed,
)
