"""Apps that end themselves with SIGKILL at a sign-up, as a crash or a power cut would: nothing is tidied up.

`uvicorn --factory backend.features.audit.tests.killed:before_the_answer`, from the environment: `KILLED_AT=3` lets two
sign-ups pass.
"""

import itertools
import os
import signal

from sqlalchemy import event
from sqlalchemy.orm import Session
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backend.features.users.passwords import CONTEXT
from backend.main import create_app

CONTEXT.update(argon2__memory_cost=256, argon2__time_cost=1)
turn = itertools.count(1)


def die_in_turn() -> None:
    if next(turn) == int(os.environ.get("KILLED_AT", "1")):
        os.kill(os.getpid(), signal.SIGKILL)


def before_the_answer() -> ASGIApp:
    """What was written has been committed; the client never hears of it."""
    app = create_app()

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        async def note(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 201:
                die_in_turn()
            await send(message)

        await app(scope, receive, note if scope.get("path") == "/api/v1/auth/signup" else send)

    return watched


def before_the_commit() -> ASGIApp:
    """Everything has been sent to the database, and nothing committed."""

    @event.listens_for(Session, "before_commit")
    def note(session: Session) -> None:
        session.flush()
        if session.info.get("wrote"):  # only sign-ups write here
            die_in_turn()

    return create_app()
