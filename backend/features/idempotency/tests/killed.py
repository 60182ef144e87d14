"""Apps that end themselves with SIGKILL as they create an account, as a crash or a power cut would.

`uvicorn --factory backend.features.idempotency.tests.killed:before_the_answer`, from the environment.
"""

import os
import signal

from sqlalchemy import event
from sqlalchemy.orm import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.core import context
from backend.main import create_app


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before_the_answer() -> ASGIApp:
    """The account and the answer have been committed; the client never hears of it."""
    app = create_app()

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        async def note(message: Message) -> None:
            if scope["path"] == "/api/v1/users" and message["type"] == "http.response.start":
                die()
            await send(message)

        await app(scope, receive, note if scope["type"] == "http" else send)

    return watched


def before_the_commit() -> ASGIApp:
    """Account and answer have been sent to the database, and not committed."""

    @event.listens_for(Session, "before_commit")
    def note(session: Session) -> None:
        if context.state("deferred_commit") and session.info.get("wrote"):
            die()

    return create_app()
