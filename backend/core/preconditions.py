"""ETag and If-Match for records with a `version` (RFC 9110 §8.8.3, §13.1.1): no edit overwrites one it has not seen."""

import re
from functools import cache
from typing import Annotated

from fastapi import Header
from pydantic import BaseModel, TypeAdapter

from backend.core.cache.keys import shape_of
from backend.core.errors import PreconditionFailed

IfMatch = Annotated[
    str | None,
    Header(max_length=200, description="`ETag` of the version you read; 412 when the record has changed since"),
]

SHAPE = re.compile(r'(?<=\d)-[0-9a-f]+(?="$)')  # of the body: an edit does not depend on it


def etag(version: int, body: type[BaseModel]) -> str:
    """The strong entity tag of a version that is shown as such a body.

    A release that shows another field has another tag: nobody keeps an answer without it.
    """
    return f'"{version}-{_shape(body)}"'


@cache
def _shape(body: type[BaseModel]) -> str:
    return shape_of(TypeAdapter(body))


def check_if_match(if_match: str | None, version: int) -> None:
    """PreconditionFailed, with the current version, unless the header is absent, `*`, or lists the current tag.

    A weak tag (`W/"3"`) never matches: If-Match compares strongly. The version alone (`"3"`) does.
    """
    if if_match is None:
        return
    tags = [SHAPE.sub("", tag.strip()) for tag in if_match.split(",")]
    if "*" not in tags and f'"{version}"' not in tags:
        raise PreconditionFailed(
            "If-Match does not name the current version of this record", details={"current_version": version}
        )
