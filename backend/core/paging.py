"""Two ways to page: by number, with a total, for people; by cursor (keyset), as fast on every page, for programs."""

import base64
import binascii
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel, Field

from backend.core.db import MAX_ID
from backend.core.errors import BadRequest

T = TypeVar("T")

MAX_PAGE_SIZE = 100

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE, description="Most records to return")]
Cursor = Annotated[
    str | None, Query(max_length=64, description="`next` of the page before; leave out for the first page")
]


class PageQuery(BaseModel):
    """`?page=1&page_size=20`. The number is bounded so that the offset stays within 64 bits."""

    page: int = Field(1, ge=1, le=MAX_ID, description="Page number, from 1")
    page_size: int = Field(20, ge=1, le=MAX_PAGE_SIZE, description="Records per page")

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.page_size


PageNumber = Annotated[PageQuery, Query()]


class Page(BaseModel, Generic[T]):
    """One numbered page and how many records there are in all."""

    items: list[T]
    page: int
    page_size: int
    total: int
    pages: int

    @classmethod
    def of(cls, items: list[T], query: PageQuery, total: int) -> "Page[T]":
        pages = -(-total // query.page_size)
        return cls(items=items, page=query.page, page_size=query.page_size, total=total, pages=pages)


class Slice(BaseModel, Generic[T]):
    """Records up to the limit, and the cursor of the next ones; `next` is null on the last page."""

    items: list[T]
    next: str | None


def encode_cursor(last_id: int) -> str:
    return base64.urlsafe_b64encode(str(last_id).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> int | None:
    """The id to go on from, None for the first page. BadRequest for anything that `encode_cursor` did not make."""
    if cursor is None:
        return None
    try:
        value = int(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error):
        raise BadRequest("The cursor is not one of ours; start again without it") from None
    if not 0 < value <= MAX_ID or encode_cursor(value) != cursor:
        raise BadRequest("The cursor is not one of ours; start again without it")
    return value
