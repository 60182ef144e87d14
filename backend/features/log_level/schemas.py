"""What is asked of the log, and what is told of it."""

from typing import Annotated

from pydantic import BaseModel, Field

from backend.core.config import LogLevel
from backend.core.schemas import WHOLE, Input

LONGEST = 24 * 3600


class LogLevelIn(Input):
    level: LogLevel = Field(description="Least severe level to write")
    seconds: Annotated[
        int, Field(ge=1, le=LONGEST, description="For how long; then it is again what the settings say"), WHOLE
    ] = 900


class LogLevelOut(BaseModel):
    level: LogLevel = Field(description="Least severe level that is written now")
    usual: LogLevel = Field(description="What the settings say")
    seconds: int | None = Field(description="For how much longer; null: the settings' own")
    everywhere: bool = Field(description="In all processes within seconds; false: in the one that answers only")
