"""A request's body, read before the app asks for it, and given to the app as if nobody had."""

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive


class Received:
    """`complete` is false when the client left in the middle, or the body was refused: the app hears the same."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._messages: list[Message] = []
        self._refused: HTTPException | None = None
        self.body = b""
        self.complete = False

    async def read(self) -> None:
        chunks = []
        while not self.complete:
            try:
                message = await self._receive()
            except HTTPException as refused:  # by a middleware further out, which counts the bytes
                self._refused = refused
                return
            self._messages.append(message)
            if message["type"] == "http.disconnect":
                return
            chunks.append(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        self.body = b"".join(chunks)

    async def __call__(self) -> Message:
        if self._messages:
            return self._messages.pop(0)
        if self._refused:
            raise self._refused
        return await self._receive()
