"""One structured line per request, once it has been answered; a WebSocket is one, too. Probes of a healthy app are not
worth a line.

`route` is the template that answered, `sql` and `sql_ms` the statements sent for it, `user` the id of who asked.
"""

from functools import partial

import structlog
from fastapi import FastAPI

from backend.core.feature import Feature
from backend.core.observing import Ended, Observer


def write_line(log: structlog.typing.FilteringBoundLogger, ended: Ended) -> None:
    if ended.status < 400 and ended.is_probe:
        return
    scope, statements, principal = ended.scope, ended.statements, ended.principal
    log.info(
        "request",
        method=ended.method,
        path=scope["path"],
        route=ended.route,
        status=ended.status,
        ms=round(ended.seconds * 1000, 2),
        sql=statements.count,
        sql_ms=round(statements.seconds * 1000, 2),
        user=principal.id if principal else None,
        client=scope["client"][0] if scope.get("client") else None,
        **ended.facts,
    )


def observer(_app: FastAPI) -> Observer:
    log = structlog.get_logger(__name__).bind()  # once, and not for each line
    return partial(write_line, log)


feature = Feature(
    name="access_log",
    summary="One structured log line per request",
    observer=observer,
)
