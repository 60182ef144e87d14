"""docs"""
from backend.core.feature import Feature
feature = Feature(name="docs", summary="/docs and /redoc from our own files")
