"""What the tests of API keys share."""

from collections.abc import Iterator

import pytest
from fastapi import FastAPI

from backend.features.api_keys.uses import Uses


@pytest.fixture
def uses(app: FastAPI) -> Iterator[Uses]:
    """A test's own: what the app writes by itself now and then would come in between."""
    the_apps = app.state.api_key_uses
    app.state.api_key_uses = mine = Uses()
    yield mine
    app.state.api_key_uses = the_apps
