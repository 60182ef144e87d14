"""What was up, since when, and what people are told about it: the history of health, and incidents.

One process among all looks at the components every few seconds and writes down what it saw, and opens an incident when
one stays down. `docs/how-to/incidents.md` says how to use it.
"""

from backend.core.feature import Feature
from backend.features.incidents.admin import IncidentView
from backend.features.incidents.panels import PANELS
from backend.features.incidents.permissions import PERMISSIONS
from backend.features.incidents.routes import router
from backend.features.incidents.settings import IncidentsSettings
from backend.features.incidents.watching import lifespan

feature = Feature(
    name="incidents",
    summary="Uptime, and incidents that open and close by themselves",
    needs=("users",),
    settings=IncidentsSettings,
    v2=router,
    lifespan=lifespan,
    permissions=PERMISSIONS,
    admin=(IncidentView,),
    status=PANELS,
)
