"""The audit log: who changed what, before and after, in the transaction of the change itself; and every security event.

Nothing in the app changes or deletes an entry; time does (`AUDIT__RETENTION_DAYS`).
"""

from backend.core.events import SecurityEvent
from backend.core.feature import Feature
from backend.core.writing_session import RecordStoring
from backend.features.audit.admin import AuditView
from backend.features.audit.history import AuditHistory
from backend.features.audit.home import PANEL
from backend.features.audit.listener import note_event, note_storing
from backend.features.audit.permissions import PERMISSIONS
from backend.features.audit.retention import lifespan
from backend.features.audit.routes import router
from backend.features.audit.settings import AuditSettings

feature = Feature(
    name="audit",
    summary="Who changed what: the audit log",
    needs=("users",),
    settings=AuditSettings,
    v1=router,
    lifespan=lifespan,
    on={SecurityEvent: note_event, RecordStoring: note_storing},
    permissions=PERMISSIONS,
    admin=(AuditView,),
    home=(PANEL,),
    history=AuditHistory(),
)
