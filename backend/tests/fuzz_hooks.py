"""Keeps the fuzzer from changing the account that it is signed in with, and its session, which would end its run.

And from using an Idempotency-Key twice: all that it sends with one would be refused, or not carried out.
"""

import re
import uuid
from typing import Any

import schemathesis

SELF = 1  # the id of the only account of a fresh live server
NOBODY = 2_000_000_000
GOOD_KEY = re.compile(r'[!#-~][!-~]{0,254}|"(?:[ !#-\[\]-~]|\\["\\]){1,255}"')


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: schemathesis.Case[Any], _options: dict[str, Any]) -> None:
    for name in ("user_id", "session_id"):
        if case.path_parameters and str(case.path_parameters.get(name)) == str(SELF):
            case.path_parameters[name] = NOBODY
    if case.headers and GOOD_KEY.fullmatch(str(case.headers.get("Idempotency-Key", ""))):
        case.headers["Idempotency-Key"] = str(uuid.uuid4())
