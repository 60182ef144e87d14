"""The cache in this process: the least recently used makes room, for a budget of bytes."""

import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from backend.core.cache.payload import Payload

EVERYTHING = "*"  # a tag that every entry has


@dataclass(slots=True)
class Counts:
    """What became of the requests for one namespace, in this process since its start, and what it holds now."""

    hits: int = 0  # answered from this process
    shared_hits: int = 0  # answered from Redis
    misses: int = 0  # computed
    evictions: int = 0  # made room before their time
    entries: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Entry:
    payload: Payload
    expires: float  # of time.monotonic()
    tags: frozenset[str]
    size: int
    counts: Counts


@dataclass
class Local:
    """Entries by key. None is older than its seconds, and all of them together no larger than `max_bytes`."""

    max_bytes: int
    max_entry_bytes: int
    bytes: int = 0
    counts: dict[str, Counts] = field(default_factory=dict)
    _entries: OrderedDict[str, Entry] = field(default_factory=OrderedDict)
    _tagged: dict[str, set[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._entries)

    def counts_of(self, namespace: str) -> Counts:
        return self.counts.setdefault(namespace, Counts())

    def get(self, key: str) -> Payload | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if time.monotonic() >= entry.expires:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        entry.counts.hits += 1
        return entry.payload

    def seconds_left(self, key: str) -> float:
        entry = self._entries.get(key)
        return max(0.0, entry.expires - time.monotonic()) if entry else 0.0

    def put(self, key: str, payload: Payload, *, seconds: float, tags: Iterable[str], namespace: str) -> None:
        """Keep it for so many seconds at most; not at all when it is larger than an entry may be."""
        size = payload.size + 2 * len(key)
        if key in self._entries:
            self._drop(key)
        if size > min(self.max_entry_bytes, self.max_bytes) or seconds <= 0:
            return
        own = frozenset(tags) - {EVERYTHING}
        entry = Entry(payload, time.monotonic() + seconds, own, size, self.counts_of(namespace))
        self._entries[key] = entry
        for tag in entry.tags:
            self._tagged.setdefault(tag, set()).add(key)
        self._count(entry, 1)
        while self.bytes > self.max_bytes:
            oldest = next(iter(self._entries))
            self._entries[oldest].counts.evictions += 1
            self._drop(oldest)

    def _count(self, entry: Entry, sign: int) -> None:
        self.bytes += sign * entry.size
        entry.counts.bytes += sign * entry.size
        entry.counts.entries += sign

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key)
        for tag in entry.tags:
            keys = self._tagged[tag]
            keys.discard(key)
            if not keys:
                del self._tagged[tag]
        self._count(entry, -1)

    def drop(self, key: str) -> int:
        """How many that were: one or none."""
        found = key in self._entries
        if found:
            self._drop(key)
        return int(found)

    def drop_tagged(self, tags: Iterable[str]) -> int:
        """How many that were."""
        tags = list(tags)
        if EVERYTHING in tags:
            return self._clear()
        keys = {key for tag in tags for key in self._tagged.get(tag, ())}
        for key in keys:
            self._drop(key)
        return len(keys)

    def _clear(self) -> int:
        dropped, self.bytes = len(self._entries), 0
        self._entries.clear()
        self._tagged.clear()
        for counts in self.counts.values():
            counts.entries = counts.bytes = 0
        return dropped

    def shorten(self, seconds: float) -> None:
        """Let nothing live for longer than so many seconds from now."""
        latest = time.monotonic() + seconds
        for entry in self._entries.values():
            entry.expires = min(entry.expires, latest)
