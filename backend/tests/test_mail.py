"""Mail, against real SMTP servers: what is sent, when, how often it is tried, and what the log keeps to itself."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
from fastapi import FastAPI

from backend.core.config import Settings
from backend.core.db import Database
from backend.core.mail import Mail, composed, offences, send_mail
from backend.core.templates import render_mail
from backend.local_secrets import _certificate, _new_key
from backend.testing import SmtpServer, free_port, smtp_server, text_of

LINK = "https://app.example.com/verify-email?token=" + "t" * 43
MAIL = Mail(to="ada@example.com", subject="Grüße", text=f"A link:\n\n{LINK}\n", html=f"<p>{LINK}</p>")

Running = Callable[..., AbstractAsyncContextManager[Database]]


@pytest.fixture
def running(make_app: Callable[..., FastAPI]) -> Running:
    """`async with running(MAIL__BACKEND="smtp") as database`: an app at work; its end is the app's graceful stop."""

    @asynccontextmanager
    async def run(**variables: str) -> AsyncIterator[Database]:
        app = make_app(**variables)
        async with app.router.lifespan_context(app):
            yield app.state.database

    return run


async def send(database: Database, mail: Mail = MAIL) -> None:
    async with database.session() as session:
        send_mail(session, mail)
        await session.commit()


async def test_a_mail_arrives_whole_with_the_headers_of_a_machine(running: Running) -> None:
    with smtp_server() as server:
        async with running(
            **server.variables, MAIL__FROM_ADDRESS="app@example.com", API__TITLE="Ada, Inc."
        ) as database:
            await send(database)
    [mail] = server.taken
    assert server.recipients == ["ada@example.com"]
    assert mail["To"] == "ada@example.com"
    assert mail["From"] == '"Ada, Inc." <app@example.com>'
    assert mail["Subject"] == "Grüße"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"].endswith("@example.com>")
    assert abs(mail["Date"].datetime.timestamp() - time.time()) < 60
    assert LINK in text_of(mail)
    html = mail.get_body(("html",))
    assert html is not None
    assert LINK in html.get_content()


async def test_what_is_rolled_back_mails_nothing(running: Running) -> None:
    with smtp_server() as server:
        async with running(**server.variables) as database:
            async with database.session() as session:
                send_mail(session, MAIL)
                await session.rollback()
            async with database.session() as session:
                send_mail(session, MAIL)  # never committed
            await send(database)
    assert len(server.taken) == 1


@pytest.mark.slow
async def test_a_server_that_is_down_is_tried_until_it_is_up(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    async with running(**SmtpServer(port).variables, LOG__FORMAT="json") as database:
        await send(database)
        log = ""
        async with asyncio.timeout(10):
            while "NotSentYet" not in log:
                log += capsys.readouterr().err
                await asyncio.sleep(0.01)
        with smtp_server(port=port) as server:
            async with asyncio.timeout(10):
                await database.info["mailer"].idle()
    assert len(server.taken) == 1


@pytest.mark.slow
@pytest.mark.parametrize("answer", ["451 4.7.1 Come back later", "421 4.3.2 Too busy"])
async def test_a_temporary_refusal_is_tried_again(running: Running, answer: str) -> None:
    with smtp_server() as server:
        server.refusals = [answer]
        async with running(**server.variables) as database:
            await send(database)
    assert server.tries == 2
    assert len(server.taken) == 1


async def test_what_was_sent_and_what_was_lost_is_counted(running: Running) -> None:
    with smtp_server() as server:
        server.refusals = ["550 5.1.1 <ada@example.com> is nobody"]
        async with running(**server.variables) as database:
            await send(database)
            await database.info["mailer"].idle()
            await send(database)
    assert (database.info["mailer"].sent, database.info["mailer"].failed) == (1, 1)


async def test_a_refusal_for_good_is_not_and_the_log_keeps_address_and_token_to_itself(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    with smtp_server() as server:
        server.refusals = ["550 5.1.1 <ada@example.com> is nobody"]
        async with running(**server.variables, LOG__FORMAT="json") as database:
            await send(database)
    assert server.tries == 1
    log = capsys.readouterr().err
    assert "mail_lost" in log
    assert "SMTPDataError 550" in log
    assert "ada@" not in log
    assert "ttt" not in log


@pytest.mark.slow
async def test_what_cannot_be_sent_in_time_is_given_up_and_logged(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = SmtpServer(free_port()).variables | {"MAIL__RETRY_SECONDS": "0.1"}
    async with running(**variables, LOG__FORMAT="json") as database:
        await send(database)
    log = capsys.readouterr().err
    assert "mail_lost" in log
    assert "SMTPConnectError" in log


async def test_a_stop_waits_no_longer_than_the_setting_says(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = SmtpServer(free_port()).variables | {"MAIL__STOP_SECONDS": "0.2"}
    async with running(**variables, LOG__FORMAT="json") as database:
        await send(database)
        before = time.monotonic()
    assert time.monotonic() - before < 2
    assert "MAIL__STOP_SECONDS" in capsys.readouterr().err


async def test_a_full_queue_drops_what_comes_on_top_and_says_so(
    make_app: Callable[..., FastAPI], capsys: pytest.CaptureFixture[str]
) -> None:
    app = make_app(MAIL__QUEUE_SIZE="2", LOG__FORMAT="json")  # not started: nobody empties the queue
    for _ in range(3):
        await send(app.state.database)
    assert capsys.readouterr().err.count("MAIL__QUEUE_SIZE mails wait already") == 1


async def test_work_that_fails_is_logged_and_the_next_is_done(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    with smtp_server() as server:
        async with running(**server.variables, LOG__FORMAT="json") as database:
            for _ in range(10):
                database.info["mailer"].do(fail)
            await send(database)
    assert len(server.taken) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.fixture
def certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's, for localhost; this process trusts it."""
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    key.write_text(_new_key())
    chain.write_text(_certificate(key.read_text()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    monkeypatch.setenv("SSL_CERT_FILE", str(chain))
    return context


@pytest.mark.slow
async def test_starttls_encrypts_before_the_password_is_sent(running: Running, certificate: ssl.SSLContext) -> None:
    given: list[tuple[bytes, bytes]] = []

    def check(_server: object, session: object, _envelope: object, _mechanism: str, credentials: object) -> object:
        from aiosmtpd.smtp import AuthResult, LoginPassword

        assert isinstance(credentials, LoginPassword)
        assert getattr(session, "ssl", None) is not None
        given.append((credentials.login, credentials.password))
        return AuthResult(success=credentials.password == b"secret")

    options = {"tls_context": certificate, "require_starttls": True, "authenticator": check, "auth_required": True}
    with smtp_server(**options) as server:
        variables = server.variables | {"MAIL__TLS": "starttls", "MAIL__USER": "app"}
        async with running(**variables, MAIL__PASSWORD="secret") as database:
            await send(database)
        async with running(**variables, MAIL__PASSWORD="wrong") as database:
            await send(database)
    assert len(server.taken) == 1
    assert given == [(b"app", b"secret"), (b"app", b"wrong")]  # a wrong password is not tried again


async def test_tls_from_the_first_byte(running: Running, certificate: ssl.SSLContext) -> None:
    with smtp_server(ssl_context=certificate) as server:
        async with running(**server.variables | {"MAIL__TLS": "tls"}) as database:
            await send(database)
    assert len(server.taken) == 1


async def test_a_certificate_that_nobody_vouches_for_gets_no_mail(
    running: Running, certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    variables = {"MAIL__TLS": "starttls", "MAIL__RETRY_SECONDS": "0.1"}
    with smtp_server(tls_context=certificate) as server:
        async with running(**server.variables | variables) as database:
            await send(database)
    assert server.taken == []


@pytest.mark.parametrize(
    "change",
    [
        {"to": "ada@example.com\nBcc: eve@example.com"},
        {"to": "ada\r\nBcc: eve@example.com"},
        {"subject": "Hello\nBcc: eve@example.com"},
        {"subject": "Hello\r\n\r\nAnother body"},
    ],
    ids=str,
)
async def test_no_value_adds_a_header_or_a_recipient(running: Running, change: dict[str, str]) -> None:
    async with running() as database, database.session() as session:
        with pytest.raises(ValueError, match=r"CR|LF|linefeed"):
            send_mail(session, Mail(**{"to": MAIL.to, "subject": "Hello", "text": "Hello"} | change))


async def test_an_address_with_a_comma_is_one_address() -> None:
    mail = Mail(to='"ada, eve@example.org"@example.com', subject="Hello", text="Hello")
    assert len(composed(mail, Settings())["To"].addresses) == 1


async def test_an_international_domain_is_written_as_every_server_reads_it() -> None:
    assert composed(Mail(to="ada@bücher.example", subject="", text=""), Settings())["To"] == "ada@xn--bcher-kva.example"


async def test_in_development_the_mail_is_in_the_log_with_its_link_whole(
    running: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(LOG__LEVEL="info", LOG__FORMAT="console") as database:
        await send(database)
    assert LINK in capsys.readouterr().err.splitlines()


async def test_without_an_app_nothing_is_mailed() -> None:
    database = Database(Settings(database={"url": "sqlite://"}).database)
    await send(database)
    await database.close()


def test_templates_escape_in_html_and_not_in_text_and_miss_no_value(tmp_path: Path) -> None:
    (tmp_path / "hello.txt").write_text('{% extends "layouts/mail.txt" %}{% block content %}{{ name }}{% endblock %}')
    (tmp_path / "hello.html").write_text('{% extends "layouts/mail.html" %}{% block content %}{{ name }}{% endblock %}')
    mail = render_mail(tmp_path, "hello", to="a@example.com", subject="A & B", title="T", name="<b>")
    assert "<b>" in mail.text
    assert "&lt;b&gt;" in mail.html
    assert "A &amp; B" in mail.html
    with pytest.raises(Exception, match="'name' is undefined"):
        render_mail(tmp_path, "hello", to="a@example.com", subject="", title="T")


def test_production_is_told_what_a_feature_that_mails_links_misses() -> None:
    missing = offences(Settings(), "open doors")
    assert [line.split(" ")[0] for line in missing] == ["MAIL__BACKEND", "API__PUBLIC_URL"]
    ready = Settings(mail={"backend": "smtp"}, api={"public_url": "https://app.example.com"})
    assert offences(ready, "open doors") == []


def test_a_password_is_not_sent_in_clear_in_production() -> None:
    settings = Settings(mail={"tls": "none", "password": "p"}, security={"secret_key": "s" * 32})
    assert [line for line in settings.offences(settings) if "MAIL__TLS" in line]


@pytest.mark.parametrize("url", ["app.example.com", "https://app.example.com/", "https://a b", "https://a?b"])
def test_a_public_url_that_links_cannot_start_with_is_refused(environment: Callable[..., None], url: str) -> None:
    environment(API__PUBLIC_URL=url)
    with pytest.raises(ValueError, match="public_url"):
        Settings()
