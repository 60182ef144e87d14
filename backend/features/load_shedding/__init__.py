"""Adaptive throttling: what is more than this process can carry is refused at once, so that the rest is served soon."""

from backend.core.feature import Feature
from backend.features.load_shedding.load import FIGURES, watched
from backend.features.load_shedding.middleware import middleware
from backend.features.load_shedding.settings import LoadSheddingSettings

feature = Feature(
    name="load_shedding",
    summary="503 for what is too much, by lag of the event loop and requests in flight",
    settings=LoadSheddingSettings,
    middleware=middleware,
    lifespan=watched,
    figures=FIGURES,
)
