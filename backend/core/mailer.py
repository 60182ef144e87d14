"""What sends mail: a bounded queue in this process and a few senders, which try again while the server is away.

What waits when the process stops is still sent, within `MAIL__STOP_SECONDS`. A process that is killed loses it: people
ask for another mail.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from email.message import EmailMessage

import stamina
import structlog
from aiosmtplib import SMTPException, SMTPNotSupported, SMTPRecipientsRefused, send

from backend.core import context, errors
from backend.core.config import MailSettings, Settings
from backend.core.figures import Figure
from backend.core.jobs import job

log = structlog.get_logger(__name__)

SENDERS = 4  # at once: an address whose server is away does not hold the others up
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds between tries, which double; plus up to one at random


class NotSent(Exception):
    """For good. The text is for logs: it has no address in it, as the servers' own often do."""


class NotSentYet(NotSent):
    """Worth another try."""


async def _hand_over(message: EmailMessage, rules: MailSettings) -> None:
    """To the server, or NotSent."""
    try:
        await send(
            message,
            hostname=rules.host,
            port=rules.port,
            username=rules.user or None,
            password=rules.password.get_secret_value() if rules.user else None,
            use_tls=rules.tls == "tls",
            start_tls=rules.tls == "starttls",
            timeout=rules.timeout,
        )
    except (SMTPException, OSError, ValueError) as exc:
        for_good = isinstance(exc, SMTPNotSupported | ValueError) or _code(exc) >= 500
        reason = f"{type(exc).__name__} {_code(exc) or ''}".strip()
        raise (NotSent if for_good else NotSentYet)(reason) from None


def _code(exc: Exception) -> int:
    """The server's reply code (RFC 5321 §4.2.1: 4xx may pass, 5xx will not); 0 when it said nothing."""
    if isinstance(exc, SMTPRecipientsRefused) and exc.recipients:
        exc = exc.recipients[0]
    return int(getattr(exc, "code", 0))


async def _awaited(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def _show(message: EmailMessage) -> None:
    """To the log, as it is to be read: links stay whole."""
    body = message.get_body(("plain",))
    text = body.get_content() if body else ""
    shown = f"mail_not_sent\n\nTo: {message['To']}\nSubject: {message['Subject']}\n\n{text}"
    log.info(shown)


class Mailer:
    """The queue of one app and its senders."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._queue: asyncio.Queue[tuple[Callable[[], Awaitable[None]], Context]] = asyncio.Queue(
            settings.mail.queue_size
        )
        self.sent = self.failed = 0  # so far
        self._under_way = 0

    def _lost(self, reason: str, *, many: int = 1, **details: object) -> None:
        self.failed += many
        log.error("mail_lost", reason=reason, **details)

    def public_url(self) -> str:
        """Where people reach the app; in development, where they reached it just now. Without a slash at the end."""
        server = self.settings.server
        return self.settings.api.public_url or context.base_url() or f"http://{server.host}:{server.port}"

    def put(self, message: EmailMessage) -> None:
        """Send this soon."""
        self.do(lambda: self._send(message))

    def do(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do this soon, apart from the request: what a mail depends on, and an answer's time must not tell."""
        try:
            self._queue.put_nowait((work, copy_context()))  # so that log lines and traces know the request
        except asyncio.QueueFull:
            self._lost("MAIL__QUEUE_SIZE mails wait already")

    @property
    def waiting(self) -> int:
        """What is not done yet, what is tried again included."""
        return self._queue.qsize() + self._under_way

    async def idle(self) -> None:
        """Return when nothing waits any more."""
        await self._queue.join()

    async def _send(self, message: EmailMessage) -> None:
        rules = self.settings.mail
        if rules.backend == "console":
            _show(message)
            return
        waits = {"wait_initial": FIRST_WAIT, "wait_max": LONGEST_WAIT, "timeout": rules.retry_seconds}
        try:
            async for attempt in stamina.retry_context(on=NotSentYet, attempts=None, **waits):
                with attempt, job("send mail"):
                    await _hand_over(message, rules)
            self.sent += 1
        except NotSent as refusal:
            self._lost(str(refusal), message_id=message["Message-ID"], subject=message["Subject"])

    async def _work(self) -> None:
        while True:
            work, around = await self._queue.get()
            self._under_way += 1
            try:
                await asyncio.create_task(_awaited(work), context=around)
            except Exception as bug:
                log.exception("mail_work_failed")
                errors.report(bug)
            finally:
                self._under_way -= 1
                self._queue.task_done()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send while the block runs, and for a while after it what waits by then."""
        senders = [asyncio.create_task(self._work()) for _ in range(SENDERS)]
        try:
            yield
        finally:
            idle = asyncio.create_task(self.idle())
            _, late = await asyncio.wait([idle], timeout=self.settings.mail.stop_seconds)
            if late:
                waiting = self._queue.qsize()
                self._lost("not sent within MAIL__STOP_SECONDS", many=waiting, waiting=waiting)
            for task in (idle, *senders):
                task.cancel()
            await asyncio.gather(idle, *senders, return_exceptions=True)


FIGURES = (
    Figure(
        name="mails",
        help="Mails that a server took (sent), or that are lost (failed); none while mail goes to the log.",
        kind="counter",
        labels=("outcome",),
        read=lambda app: {("sent",): app.state.mailer.sent, ("failed",): app.state.mailer.failed},
    ),
    Figure(
        name="mails_waiting",
        help="Mails that wait to be sent, or to be tried again.",
        read=lambda app: app.state.mailer.waiting,
    ),
)
