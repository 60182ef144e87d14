"""How values are written into the log: as JSON, bounded, without secrets."""

import json
import math
from datetime import date
from enum import Enum
from typing import Any

from pydantic import SecretBytes, SecretStr

from backend.core.masking import MASK

REDACTED = MASK
UNKNOWN = "(not known)"  # what a row held that was changed without being read
LONGEST = 1000  # characters of one value


def _bounded(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"


def shown(value: Any) -> Any:
    """A value as the log keeps it. Exact types such as Decimal become text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, SecretStr | SecretBytes):
        return REDACTED
    if isinstance(value, Enum):
        return shown(value.value)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, date):  # and datetime
        return value.isoformat()
    if isinstance(value, bytes):
        return f"({len(value)} bytes)"
    if isinstance(value, set | frozenset):
        value = sorted(value, key=str)
    if isinstance(value, dict | list | tuple):
        text = json.dumps(value, default=lambda inner: str(shown(inner)), ensure_ascii=False)
        return json.loads(text) if len(text) <= LONGEST else _bounded(text)
    return _bounded(str(value))
