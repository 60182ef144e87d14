"""One request that holds a claim, from its start to the moment when its answer is stored and on its way."""

import asyncio

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.core import context, errors
from backend.core.config import Settings
from backend.core.db import Database, DeferredCommit
from backend.core.errors import AppError
from backend.features.idempotency import service
from backend.features.idempotency.answers import kept_of, sealed
from backend.features.idempotency.service import Claim
from backend.features.idempotency.settings import IdempotencySettings
from backend.features.users.events import AccountDeleted

log = structlog.get_logger(__name__)


def refusal(scope: Scope, exc: Exception) -> JSONResponse | None:
    """An exception as the answer that the app's handlers would give; None for a bug of ours."""
    error = exc if isinstance(exc, AppError) else errors.of_database(exc)
    if error is None:
        return None
    return errors.error_response(
        scope, error.status, error.code, error.text, details=error.details, headers=error.headers
    )


class Exchange:
    """Keeps the answer back until the work and the answer are committed together; gives the claim back otherwise."""

    def __init__(self, scope: Scope, send: Send, mine: Claim) -> None:
        self.scope = scope
        self.send = send
        self.mine = mine
        self.settings: Settings = scope["app"].state.settings
        self.database: Database = scope["app"].state.database
        self.work = DeferredCommit()
        self.start: Message = {}
        self.finished = False
        self.settled = False
        self.replaced = False

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        self.scope["state"] |= {"deferred_commit": self.work, "exchange": self}
        try:
            await app(self.scope, receive, self.take)
        finally:
            if not self.settled:  # cancelled, or failed without an answer
                await asyncio.shield(self.give_up())

    async def take(self, message: Message) -> None:
        """What the app sends. An answer in several parts is a stream: it is not kept, nor kept back until its end."""
        if message["type"] == "http.response.start":
            self.start = message
        elif self.settled:
            if not self.replaced:
                await self.send(message)
        else:
            refused = await self.settle(None if message.get("more_body") else message.get("body", b""))
            if refused:
                self.replaced = True
                await refused(self.scope, _nothing, self.send)
            else:
                await self.send(self.start)
                await self.send(message)

    async def settle(self, body: bytes | None) -> JSONResponse | None:
        """Commit the work with its answer. What was rolled back, or could not be committed, gives the claim back."""
        try:
            if self.work.session is not None or self.start["status"] < 400:
                await self.commit(body)
            else:
                await self.give_up()
            refused = None
        except Exception as exc:
            await self.give_up()
            refused = refusal(self.scope, exc)
            if refused is None:
                log.exception("unhandled_error", path=self.scope["path"])
                refused = errors.error_response(self.scope, 500, AppError.code, AppError.message)
        self.settled = True
        return refused

    async def commit(self, body: bytes | None) -> None:
        largest = IdempotencySettings.current().answer_bytes
        answer = None if body is None else kept_of(self.start, body, largest)
        stored = None if answer is None else sealed(answer, self.settings.security, self.mine.place)
        self.work.session = self.work.session or self.database.session()  # a route that asked for none
        try:
            if not self.finished:
                await service.finish(self.work.session, self.mine, stored)
            await self.work.session.commit()
        finally:
            await asyncio.shield(self.work.close())

    async def give_up(self) -> None:
        """Roll back what there is. When the database is away, the claim ends by itself, by time."""
        try:
            await self.work.close()
            await service.give_back(self.database, self.mine)
        except (SQLAlchemyError, OSError) as exc:
            log.warning("idempotency_key_not_given_back", error=type(exc).__name__)


async def finish_before(session: AsyncSession, deleted: AccountDeleted) -> None:
    """Who deletes their own account deletes its keys, and the claim on this very request: it is done before it goes."""
    exchange = context.state("exchange")
    if isinstance(exchange, Exchange) and exchange.mine.user_id == deleted.user_id:
        await service.finish(session, exchange.mine, None)
        exchange.finished = True


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
