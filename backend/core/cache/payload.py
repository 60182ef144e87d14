"""What is cached: bytes as they go out, and how Redis keeps them."""

import time
from dataclasses import dataclass
from hashlib import blake2b

import orjson

MAC_SIZE = 16  # bytes

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Payload:
    """A serialized answer, with its headers if it is one. `keep` is False for what nobody else may get."""

    body: bytes
    headers: Headers = ()
    keep: bool = True

    @property
    def size(self) -> int:
        """Bytes, about: what Python needs around them counts too."""
        return len(self.body) + sum(len(name) + len(value) + 150 for name, value in self.headers) + 800


@dataclass(frozen=True, slots=True)
class Packed:
    """What Redis holds under a key. `tokens`: what each tag's was before the value was computed."""

    payload: Payload
    expires: float  # Unix time
    tokens: list[str]

    @property
    def seconds_left(self) -> float:
        return self.expires - time.time()


def pack(packed: Packed, *, key: str, secret: bytes) -> bytes:
    """For Redis, signed: what is damaged there, is of another key, or was written by a stranger, will not unpack."""
    headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in packed.payload.headers]
    head = orjson.dumps((packed.expires, packed.tokens, headers))
    content = len(head).to_bytes(4, "big") + head + packed.payload.body
    return _mac(content, key, secret) + content


def unpack(data: bytes, *, key: str, secret: bytes) -> Packed | None:
    """None for what `pack` did not make with this key and this secret."""
    mac, content = data[:MAC_SIZE], data[MAC_SIZE:]
    if mac != _mac(content, key, secret):
        return None
    end = 4 + int.from_bytes(content[:4], "big")
    expires, tokens, headers = orjson.loads(content[4:end])
    pairs = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)
    return Packed(Payload(content[end:], pairs), expires, tokens)


def _mac(content: bytes, key: str, secret: bytes) -> bytes:
    return blake2b(key.encode() + b"\0" + content, key=secret, digest_size=MAC_SIZE).digest()
