"""The public pages: `/` says what this is, `/status` whether it works. Server-rendered, complete without JavaScript."""

from frontend.pages import mount

__all__ = ["mount"]
