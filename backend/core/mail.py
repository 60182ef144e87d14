"""Mail: `send_mail(session, Mail(…))` sends once the session has committed, and never lets the request wait."""

from contextlib import suppress
from dataclasses import dataclass
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid

from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core.commits import after_commit
from backend.core.config import Settings
from backend.core.mailer import Mailer
from backend.core.models import utc_now

NOBODY_GETS = "MAIL__BACKEND is console: nobody gets the links that {purpose}"
FORGEABLE = "API__PUBLIC_URL is empty: a forged Host header would decide where the links that {purpose} lead"


@dataclass(frozen=True, kw_only=True)
class Mail:
    """A mail to one address, as text and, if there is one, as HTML of the same content."""

    to: str
    subject: str
    text: str
    html: str = ""


def _address(name: str, address: str) -> Address:
    """ValueError for line breaks. The domain in ASCII: few servers understand others."""
    local, _, domain = address.rpartition("@")
    with suppress(UnicodeError):  # no domain that DNS could know: the server will say so
        domain = domain.encode("idna").decode()
    return Address(name, local, domain)


def composed(mail: Mail, settings: Settings) -> EmailMessage:
    """The message with its headers (RFC 5322, RFC 3834). ValueError when a value would add a header of its own."""
    sender = _address(settings.mail.from_name or settings.api.title, settings.mail.from_address)
    message = EmailMessage()
    message["From"] = sender
    message["To"] = _address("", mail.to)
    message["Subject"] = mail.subject
    message["Date"] = format_datetime(utc_now())
    message["Message-ID"] = make_msgid(domain=sender.domain)
    message["Auto-Submitted"] = "auto-generated"  # no "I am on holiday" comes back
    message.set_content(mail.text, cte="quoted-printable")
    if mail.html:
        message.add_alternative(mail.html, subtype="html", cte="quoted-printable")
    return message


def mailer_of(session: AsyncSession) -> Mailer | None:
    """The app's mailer; None where there is no app, as in a command."""
    mailer: Mailer | None = session.info.get("mailer")
    return mailer


def send_mail(session: AsyncSession, mail: Mail) -> None:
    """Send a mail when this session commits, and none when it rolls back. ValueError for line breaks in headers."""
    if (mailer := mailer_of(session)) is not None:
        message = composed(mail, mailer.settings)
        after_commit(session, lambda: mailer.put(message))


def offences(settings: Settings, purpose: str) -> list[str]:
    """Why a feature that mails links cannot do so in production; `purpose` says what the links do."""
    checks = {NOBODY_GETS: settings.mail.backend == "console", FORGEABLE: not settings.api.public_url}
    return [sentence.format(purpose=purpose) for sentence, unsafe in checks.items() if unsafe]
