"""What background actions do, counted for whoever watches."""

from backend.core.figures import Figure
from backend.core.tallies import Tally

RUNNING = Figure(
    name="console_jobs_running",
    help="Background actions of the console that processes work on.",
    read=lambda app: float(getattr(app.state, "console_job", None) is not None),
)
RECORDS = Tally(
    "console_job_records",
    "Records that background actions of the console handled, by outcome.",
    label="outcome",
    values=("done", "refused"),
)
