"""What must not be read in logs, made unreadable: `ada@example.com` → `a•••@example.com`."""

import re

MASK = "•••"

# Each word once, from its beginning: time grows with the text's length alone, whatever strangers put into it. What is
# escaped in JSON, and colours of a terminal, are no part of a word.
WORDS = re.compile(
    r"""\\(?:u[0-9a-fA-F]{4}|.) | \x1b\[[0-9;]*+m
    | (?P<address> [^\s\\\x1b"@<>()\[\],;:=/&?]++ (?P<domain> @[\w-]++ (?:\.[\w-]++)*+ )? )""",
    re.VERBOSE | re.DOTALL,
)


def masked(address: str) -> str:
    """An address of which little is left; of what is none, nothing: it may be a password in the wrong field."""
    local, at, domain = address.rpartition("@")
    return f"{local[:1]}{MASK}@{domain}" if at and local else MASK


def _without_address(found: re.Match[str]) -> str:
    return masked(found["address"]) if found["domain"] else found[0]


def without_addresses(text: str) -> str:
    """The text, with each e-mail address in it masked."""
    return WORDS.sub(_without_address, text) if "@" in text else text
