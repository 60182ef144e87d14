"""Jinja templates of features: mails as text and HTML, and small pages, in the kernel's layouts.

A template that names a value which it did not get is an error, not a gap in the text.
"""

from functools import cache
from pathlib import Path
from typing import Any

from fastapi import Request
from fastapi.templating import Jinja2Templates
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.mail import Mail, mailer_of, send_mail

KERNEL = Path(__file__).parent


@cache
def _environment(folder: Path) -> Environment:
    """The templates of a folder, which extend the kernel's `layouts`. HTML escapes its values."""
    return Environment(
        loader=FileSystemLoader([folder, KERNEL]),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render_mail(folder: Path, name: str, /, *, to: str, subject: str, **values: Any) -> Mail:
    """A mail from `name.txt` and `name.html`, which say the same."""
    templates = _environment(folder)
    text, html = (templates.get_template(f"{name}.{kind}").render(values, subject=subject) for kind in ("txt", "html"))
    return Mail(to=to, subject=subject, text=text, html=html)


def send_template(session: AsyncSession, folder: Path, name: str, /, *, to: str, subject: str, **values: Any) -> None:
    """Render a mail and send it when this session commits. Its templates know the app as `title`."""
    if (mailer := mailer_of(session)) is not None:
        values["title"] = mailer.settings.api.title
        send_mail(session, render_mail(folder, name, to=to, subject=subject, **values))


def _of_page(request: Request) -> dict[str, Any]:
    return {"root": request.scope["root_path"], "title": request.app.state.settings.api.title}


def pages(folder: Path) -> Jinja2Templates:
    """For pages in the layout `layouts/page.html`, which wears the public pages' style."""
    return Jinja2Templates(env=_environment(folder), context_processors=[_of_page])
