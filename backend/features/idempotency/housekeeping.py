"""Keys whose time is over are deleted, at the start of a process and once an hour."""

from fastapi import FastAPI

from backend.core.housekeeping import regularly
from backend.features.idempotency import service

HOUR = 3600  # seconds


async def _tidy(app: FastAPI) -> None:
    while not app.state.stopping.begun and await service.delete_expired(app.state.database):
        pass


lifespan = regularly(_tidy, seconds=HOUR, failed="idempotency_keys_not_deleted")
