"""ETag and If-Match for records with a `version` (RFC 9110 §8.8.3, §13.1.1): no edit overwrites one it has not seen."""

from typing import Annotated

from fastapi import Header

from backend.core.errors import PreconditionFailed

IfMatch = Annotated[
    str | None,
    Header(max_length=200, description="`ETag` of the version you read; 412 when the record has changed since"),
]


def etag(version: int) -> str:
    """The strong entity tag of a version."""
    return f'"{version}"'


def check_if_match(if_match: str | None, version: int) -> None:
    """PreconditionFailed, with the current version, unless the header is absent, `*`, or lists the current tag.

    A weak tag (`W/"3"`) never matches: If-Match compares strongly.
    """
    if if_match is None:
        return
    tags = [tag.strip() for tag in if_match.split(",")]
    if "*" not in tags and etag(version) not in tags:
        raise PreconditionFailed(
            "If-Match does not name the current version of this record", details={"current_version": version}
        )
