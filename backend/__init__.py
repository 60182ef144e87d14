"""Mainstay's backend: a small kernel (`core`), features that come out one by one, and one composition root (`main`)."""

__version__ = "0.1.0"
