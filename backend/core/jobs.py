"""What is done apart from requests, by name, and a place to watch it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

# Entered around each piece of such work; told of its name, and of the exception that ends it.
watchers: list[Callable[[str], AbstractContextManager[None]]] = []


@contextmanager
def job(name: str) -> Iterator[None]:
    """Watched within the block."""
    with ExitStack() as watched:
        for watch in watchers:
            watched.enter_context(watch(name))
        yield
