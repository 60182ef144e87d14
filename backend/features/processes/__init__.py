"""Which processes run, on which hosts, and how they do; and the last answers that failed, of all of them.

Each process says so every few seconds, in one transaction: no request waits for it, or sends SQL for it.
"""

from backend.core.feature import Feature
from backend.features.processes.panel import PANEL
from backend.features.processes.permissions import PERMISSIONS
from backend.features.processes.reporting import lifespan, observer
from backend.features.processes.settings import ProcessesSettings

feature = Feature(
    name="processes",
    summary="Which processes run, how they do, and the last answers that failed",
    settings=ProcessesSettings,
    observer=observer,
    lifespan=lifespan,
    permissions=PERMISSIONS,
    status=(PANEL,),
)
