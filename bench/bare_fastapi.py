"""Reference (a2): one typed JSON route on FastAPI, without middleware, callers or a database."""

from fastapi import FastAPI
from pydantic import BaseModel


class Status(BaseModel):
    status: str


app = FastAPI(openapi_url=None)


@app.get("/json")
async def typed() -> Status:
    return Status(status="ok")
