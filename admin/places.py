"""How much of what takes long may be done at once in a process: each holds a connection to the database meanwhile."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException


class Places:
    """So many at once; whoever comes when all are taken is asked to come back."""

    def __init__(self, most: int, busy: str) -> None:
        self.free = most
        self.busy = busy

    @contextmanager
    def taken(self) -> Iterator[None]:
        """One of them, for the block. HTTPException 503 when there is none."""
        if not self.free:
            raise HTTPException(503, self.busy, headers={"Retry-After": "30"})
        self.free -= 1
        try:
            yield
        finally:
            self.free += 1
