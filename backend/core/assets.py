"""Static files with a `Cache-Control` of one's choosing; Starlette's own send none, and browsers then guess."""

from pathlib import Path
from typing import Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles


class Assets(StaticFiles):
    """The files of a folder, each with the given `Cache-Control`."""

    def __init__(self, folder: Path, *, cache: str) -> None:
        super().__init__(directory=folder)
        self.cache = cache

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = self.cache
        return response
