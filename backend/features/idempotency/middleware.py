"""Carries out once what has an Idempotency-Key. The innermost middleware: it stores answers as the app gives them."""

from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from backend.core.auth import Principal, recognised
from backend.core.config import SecuritySettings, Settings
from backend.core.db import SAFE_METHODS
from backend.core.errors import Unauthorized
from backend.features.idempotency import keys, service
from backend.features.idempotency.answers import Answer, opened
from backend.features.idempotency.errors import AnswerNotKept
from backend.features.idempotency.exchange import Exchange, refusal
from backend.features.idempotency.figures import REPLAYS
from backend.features.idempotency.received import Received
from backend.features.idempotency.service import Claim


class Idempotency:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in SAFE_METHODS or not (shown := keys.shown_in(scope)):
            await self.app(scope, receive, send)
            return
        received = Received(receive)
        try:
            claimed = await _claimed(scope, received, shown)
        except Exception as exc:
            if (refused := refusal(scope, exc)) is None:
                raise
            await refused(scope, receive, send)
            return
        if isinstance(claimed, Answer):
            REPLAYS.add_now(scope["app"])
            await claimed.send_again(send)
        elif claimed is None:
            await self.app(scope, received, send)
        else:
            await Exchange(scope, send, claimed).run(self.app, received)


async def _claimed(scope: Scope, received: Received, shown: list[bytes]) -> Claim | Answer | None:
    """The right to carry the request out, or the answer that it got before; None when keys mean nothing here."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    principal = await _caller(scope) if path.startswith("/api/") else None
    if principal is None:
        return None
    key = keys.key_of(shown)
    await received.read()
    if not received.complete:
        return None
    security: SecuritySettings = scope["app"].state.settings.security
    found = keys.fingerprints(scope, principal, received.body, security)
    mine = Claim(user_id=principal.id, key_hash=keys.digest([key.encode()]).hex(), fingerprints=found)
    done = await service.claim(scope["app"].state.database, mine)
    if done is None:
        return mine
    answer = done.answer and opened(done.answer, security, mine.place)
    if not answer:
        raise AnswerNotKept
    return answer


async def _caller(scope: Scope) -> Principal | None:
    """Nobody, when nobody can be recognised: a route that needs a caller says so itself."""
    try:
        return await recognised(HTTPConnection(scope))
    except Unauthorized:
        return None


def middleware(settings: Settings) -> Middleware:
    return Middleware(Idempotency)
