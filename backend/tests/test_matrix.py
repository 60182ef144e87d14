"""Which databases this run covered, and which it had to leave out."""

import pytest

from backend.testing import available


@pytest.mark.parametrize("name", ["sqlite", "postgresql", "mariadb"])
def test_the_suite_runs_on(name: str, pytestconfig: pytest.Config) -> None:
    if name not in available(pytestconfig):
        pytest.skip(f"nothing was run on {name}: TEST_MARIADB_URL is not set, or --databases leaves it out")
