"""Keeps the fuzzer from deleting or changing the account that it is signed in with, which would end its run early."""

from typing import Any

import schemathesis

SELF = 1  # the id of the only account of a fresh live server
NOBODY = 2_000_000_000


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: schemathesis.Case[Any], _options: dict[str, Any]) -> None:
    if case.path_parameters and str(case.path_parameters.get("user_id")) == str(SELF):
        case.path_parameters["user_id"] = NOBODY
