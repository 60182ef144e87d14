"""How much the log says, changed while the app runs, and only for a while. Through Redis all processes hear of it."""

from backend.core.feature import Feature
from backend.features.log_level.console import LogLevelPage
from backend.features.log_level.level import lifespan
from backend.features.log_level.permissions import PERMISSIONS
from backend.features.log_level.routes import router

feature = Feature(
    name="log_level",
    summary="The level of the log, changed for a while at run time",
    v2=router,
    lifespan=lifespan,
    permissions=PERMISSIONS,
    admin=(LogLevelPage,),
)
