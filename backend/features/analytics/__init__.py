"""How the API is used: requests, errors and latencies by time, route, method, status and kind of caller.

Counted in memory and stored every few seconds: no request waits for it, or sends SQL for it.
"""

from backend.core.feature import Feature
from backend.features.analytics.counting import FIGURES, observer
from backend.features.analytics.panel import HOME, PANEL
from backend.features.analytics.permissions import PERMISSIONS
from backend.features.analytics.routes import router
from backend.features.analytics.settings import AnalyticsSettings
from backend.features.analytics.storing import lifespan

feature = Feature(
    name="analytics",
    summary="How the API is used, kept by the app itself",
    settings=AnalyticsSettings,
    v2=router,
    observer=observer,
    lifespan=lifespan,
    figures=FIGURES,
    permissions=PERMISSIONS,
    status=(PANEL,),
    home=(HOME,),
)
