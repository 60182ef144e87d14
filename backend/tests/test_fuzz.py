"""Schemathesis on the served OpenAPI document: every check, valid and invalid data, signed in as an administrator.

How it reads our statuses is in `schemathesis.toml`. Reproduce a finding with the seed that it prints.
"""

import os
import re
import subprocess
import sys

import httpx2
import pytest

from backend.testing import PASSWORD, ROOT

COMMAND = (
    *("-m", "schemathesis.cli", "run", "--checks", "all", "--mode", "all", "--max-examples", "15"),
    *(
        "--request-timeout",
        "20",
        "--continue-on-failure",
        "--generation-database",
        "none",
        "--seed",
        os.environ.get("FUZZ_SEED", "1"),
    ),
    *("--include-path-regex", "^/api/v2/|^/[a-z]+(/detailed)?$"),  # v2 has all that v1 has
    *("--exclude-path-regex", "/sse/|/logout"),  # a stream has no end, and the token would be worthless from then on
)

# What wants a code or a token that nobody guesses.
GUESSING = {f"POST /api/v2/auth/{name}" for name in ("refresh", "totp/confirm", "totp/disable", "totp/recovery-codes")}


@pytest.mark.slow
def test_schemathesis_finds_nothing(fresh_server: str) -> None:
    form = {"username": "admin@example.com", "password": PASSWORD}
    token = httpx2.post(f"{fresh_server}/api/v1/auth/token", data=form).json()["access_token"]
    command = [sys.executable, *COMMAND, "--header", f"Authorization: Bearer {token}", f"{fresh_server}/openapi.json"]
    # The fuzzer itself is not what is measured, and twice as slow when it is.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    environment["SCHEMATHESIS_HOOKS"] = "backend.tests.fuzz_hooks"
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    warning = found.stdout.partition("only 401/403 responses")[2].partition("\n\n")[2].partition("\n\n")[0]
    refused = set(re.findall(r"- (\w+ /\S+)", warning))
    assert refused <= GUESSING, "the token was not accepted, so little was tested"
