"""Loads the shared fixtures for every test in the tree."""

pytest_plugins = ["backend.testing"]
