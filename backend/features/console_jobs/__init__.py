"""Actions of the console on more records than one transaction should hold: done in the background, chunk by chunk.

Progress is stored with the work itself, so a process that is killed loses nothing and repeats nothing.
"""

from backend.core.feature import Feature
from backend.features.console_jobs.console import JobPage, JobView
from backend.features.console_jobs.figures import RECORDS, RUNNING
from backend.features.console_jobs.permissions import PERMISSIONS
from backend.features.console_jobs.settings import ConsoleJobsSettings
from backend.features.console_jobs.starting import start
from backend.features.console_jobs.working import lifespan

feature = Feature(
    name="console_jobs",
    summary="Actions on thousands of records in the console, in the background, with progress",
    needs=("users",),
    settings=ConsoleJobsSettings,
    lifespan=lifespan,
    permissions=PERMISSIONS,
    admin=(JobView, JobPage),
    long_actions=start,
    figures=(RUNNING, RECORDS.figure),
)
