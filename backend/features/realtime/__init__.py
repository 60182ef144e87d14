"""Connections that stay open: a WebSocket that echoes, and a clock as server-sent events that resumes where it stopped.

Copy them for streams of your own. They hold no database connection while they are open, their number and their life are
bounded, and they end in order when the server stops.
"""

from backend.core.feature import Feature
from backend.features.realtime.connections import lifespan
from backend.features.realtime.routes import router
from backend.features.realtime.settings import RealtimeSettings

feature = Feature(
    name="realtime",
    summary="WebSocket echo and a resumable stream of server-sent events",
    settings=RealtimeSettings,
    v2=router,
    lifespan=lifespan,
)
