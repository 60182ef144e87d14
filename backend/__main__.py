"""`python -m backend COMMAND`: what operators and the scripts run. One entry point for every process."""

import argparse
import asyncio
import json
import os
import secrets
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import uvicorn
from alembic import command
from alembic.config import Config
from alembic.operations.ops import MigrationScript
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.exc import ArgumentError, OperationalError
from sqlmodel import col, select
from tqdm import tqdm

from backend.core import feature
from backend.core.config import BadSetting, Settings, UnsafeSettings
from backend.core.db import Database, async_url, is_memory, sync_engine, sync_session
from backend.core.errors import AppError
from backend.core.events import SecurityEvent
from backend.core.models import utc_now
from backend.features import FEATURES
from backend.features.users import service as users
from backend.features.users.models import User
from backend.features.users.schemas import Email
from backend.local_secrets import write_secrets
from backend.main import create_app

ROOT = Path(__file__).resolve().parent.parent
ENV_FILE = ROOT / ".env"
EMAIL = TypeAdapter[str](Email)
ADMIN_EMAIL = "admin@example.com"
SEED_COUNT = 200  # records per feature
PLACES = {
    "/docs": "API documentation, to try things out",
    "/admin": "the console",
    "/status": "whether everything works",
}
WEBSOCKET_BYTES = 1024 * 1024  # what the server takes in of one message before a feature's own, smaller limit sees it
GRACE = 30  # seconds that a stopping server gives to the requests it is serving
# Seconds until a worker is taken for hung; on a busy core its imports alone can take ten. One that ends just while
# uvicorn asks whether it lives is missed only then, too.
SILENCE = 30


def serve(arguments: argparse.Namespace) -> None:
    """Serve the app as the settings say; --reload restarts it when code changes."""
    settings = Settings.current()
    create_app(settings)  # so that what is wrong with the settings is said once, plainly, before any worker starts
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn hands the signal on when it has stopped in order
    uvicorn.run(
        "backend.main:served_app",
        factory=True,
        host=settings.server.host,
        port=settings.server.port,
        workers=settings.server.workers,
        reload=arguments.reload,
        reload_dirs=[str(ROOT / part) for part in ("backend", "admin", "frontend")] if arguments.reload else None,
        root_path=settings.api.root_path,
        log_config=None,
        server_header=False,
        forwarded_allow_ips=settings.server.forwarded_allow_ips,
        timeout_graceful_shutdown=GRACE,
        timeout_worker_healthcheck=SILENCE,
        ws_max_size=WEBSOCKET_BYTES,
    )


def dev(arguments: argparse.Namespace) -> None:
    """All that a fresh clone needs, then the server: .env with a secret, tables, the first administrator."""
    if not ENV_FILE.exists():
        with os.fdopen(os.open(ENV_FILE, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(f"# Written by ./scripts/dev; .env.example lists every setting.\n{_secret_line()}\n")
    settings = Settings.current()
    create_app(settings)  # so that what is wrong with the settings is said before anything else
    if is_memory(async_url(settings.database.url)):
        sys.exit(
            "DATABASE__URL is in memory, where nothing lasts and no administrator is: use `python -m backend serve`"
        )
    _check_port(settings)
    migrate(argparse.Namespace(revision="head"))
    if arguments.seed:
        seed(argparse.Namespace(count=SEED_COUNT))
    host = f"[{settings.server.host}]" if ":" in settings.server.host else settings.server.host
    base = f"http://{host}:{settings.server.port}"
    print(f"\n{settings.api.title} on {base}")
    for path, meaning in PLACES.items():
        if path.strip("/") not in settings.features_off:
            print(f"  {base}{path:8} {meaning}")
    admin(argparse.Namespace(email=ADMIN_EMAIL, first=True))
    print("Stop with Ctrl+C; ./scripts/admin gives an administrator a new password\n", flush=True)
    serve(argparse.Namespace(reload=not arguments.no_reload))


def _check_port(settings: Settings) -> None:
    """Exit in plain words when the port is taken, before anything is shown that is shown once."""
    host, port = settings.server.host, settings.server.port
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server itself does
            probe.bind(address)
    except OSError as refused:
        sys.exit(f"Cannot listen on {host}, port {port} ({refused.strerror}): set PORT or SERVER__HOST")


def _secret_line() -> str:
    return f"SECURITY__SECRET_KEY={secrets.token_urlsafe(48)}"


def _alembic() -> Config:
    return Config(ROOT / "alembic.ini")


def migrate(arguments: argparse.Namespace) -> None:
    """Bring the database to the newest revision, or to the one named. A newer version's is left as it is."""
    before = _revision()
    if arguments.revision == "head" and before not in {"none", *_revisions()}:  # this version is a roll-back
        print(f"Tables: {before}, which is newer than this version; left as they are")
        return
    config = _alembic()
    history = ScriptDirectory.from_config(config).walk_revisions(head=before if before != "none" else "base")
    earlier = {"base", *(one.revision for one in history)} - {before}
    back = arguments.revision.startswith("-") or arguments.revision in earlier
    (command.downgrade if back else command.upgrade)(config, arguments.revision)
    after = _revision()
    print(f"Tables: {before} → {after}" if before != after else f"Tables: {after}, as they should be")


def await_migrations(arguments: argparse.Namespace) -> None:
    """Wait until another process has made this version's tables; a newer version's will do."""
    behind = {"none", *_revisions()[1:]}
    deadline = time.monotonic() + arguments.seconds
    while (now := _revision_if_any()) in behind:
        if time.monotonic() > deadline:
            sys.exit(f"Tables: {now}, still not {_revisions()[0]} after {arguments.seconds} seconds")
        time.sleep(1)
    print(f"Tables: {now}, as they should be")


def _revision_if_any() -> str:
    """The revision that the database is at; `none` while it does not answer."""
    try:
        return _revision()
    except OperationalError:
        return "none"


def _revisions() -> list[str]:
    """All that this version knows, the newest first."""
    return [one.revision for one in ScriptDirectory.from_config(_alembic()).walk_revisions()]


def _revision() -> str:
    """The revision that the database is at."""
    engine = sync_engine(Settings.current().database)
    with engine.connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
    engine.dispose()
    return revision or "none"


def new_migration(arguments: argparse.Namespace) -> None:
    """Write the migration from the database as it is to the tables as the code declares them."""
    config = _alembic()
    command.upgrade(config, "head")  # the difference is to the newest migration, not to a database that lags behind
    number = len(list(ScriptDirectory.from_config(config).walk_revisions())) + 1

    def unless_empty(_context: object, _revision: object, directives: list[MigrationScript]) -> None:
        if all(script.upgrade_ops is None or script.upgrade_ops.is_empty() for script in directives):
            print("The tables are what the code says already: there is nothing to write")
            directives.clear()

    command.revision(
        config,
        arguments.message,
        autogenerate=True,
        rev_id=f"{number:04d}",
        process_revision_directives=unless_empty,
    )


def check_migrations(_arguments: argparse.Namespace) -> None:
    """Fail when the tables that the code declares are not those of the newest revision."""
    command.check(_alembic())


async def _set_admin(email: str, *, only_first: bool) -> str | None:
    email = EMAIL.validate_python(email)
    settings = Settings.current()
    database = Database(settings.database)
    # Who writes down what happens hears of this, too; others would have an app to work with.
    listening = feature.load("backend.features", FEATURES, off=settings.features_off).handlers
    database.info["handlers"] = {SecurityEvent: listening.get(SecurityEvent, ())}
    password = secrets.token_urlsafe(12)
    # Who runs this vouches for the address.
    fields: dict[str, Any] = {"password": password, "role": "admin", "email_verified_at": utc_now()}
    try:
        async with database.session() as session:
            admins = select(User.id).where(User.role == "admin", col(User.is_active))
            if only_first and (await session.exec(admins)).first() is not None:
                return None
            user = (await session.exec(select(User).where(User.email == email))).first()
            if user is None:
                await users.create_user(session, email=email, **fields)
            else:
                await users.update_user(session, user, is_active=True, **fields)
            await session.commit()
            return password
    finally:
        await database.close()


def admin(arguments: argparse.Namespace) -> None:
    """Create an administrator, or give an existing account a new password and the role; prints the password once."""
    password = asyncio.run(_set_admin(arguments.email, only_first=arguments.first))
    if password is not None:
        print(f"Admin: {arguments.email}\nPassword: {password}   (shown once; ./scripts/admin makes a new one)")


def seed(arguments: argparse.Namespace) -> None:
    """Add demo data from every feature that has some, with a progress bar."""
    settings = Settings.current()
    registry = feature.load("backend.features", FEATURES, off=settings.features_off)
    with sync_session(settings.database) as session:
        for one in registry.features:
            if one.seed:
                with tqdm(total=arguments.count, desc=one.name, unit="rows") as bar:
                    one.seed(session, arguments.count, bar.update)


def local_secrets(arguments: argparse.Namespace) -> None:
    """Write the passwords, keys and certificate of a local stack into a folder; what is there already stays."""
    for name in write_secrets(arguments.folder):
        print(f"Wrote {name}")


def openapi(_arguments: argparse.Namespace) -> None:
    """Print the API's description (OpenAPI 3.1) as JSON; nothing is served or connected."""
    print(json.dumps(create_app(Settings.current()).openapi(), indent=2))


def positive_number(text: str) -> int:
    if (number := int(text)) < 1:
        raise ValueError
    return number


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(prog="python -m backend", description=__doc__)
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    one = commands.add_parser("serve", aliases=["api"], help=serve.__doc__)
    one.add_argument("--reload", action="store_true")
    one.set_defaults(run=serve)
    one = commands.add_parser("dev", help=dev.__doc__)
    one.add_argument("--seed", action="store_true", help="add demo data")
    one.add_argument("--no-reload", action="store_true", help="do not restart when code changes")
    one.set_defaults(run=dev)
    one = commands.add_parser("migrate", help=migrate.__doc__)
    one.add_argument("revision", nargs="?", default="head", help="head (default), a revision, or a step back: -1")
    one.set_defaults(run=migrate)
    one = commands.add_parser("await-migrations", help=await_migrations.__doc__)
    one.add_argument("--seconds", type=positive_number, default=300, help="after so many it fails (default 300)")
    one.set_defaults(run=await_migrations)
    one = commands.add_parser("new-migration", help=new_migration.__doc__)
    one.add_argument("message", help='what changes, such as "add item colour"')
    one.set_defaults(run=new_migration)
    one = commands.add_parser("check-migrations", help=check_migrations.__doc__)
    one.set_defaults(run=check_migrations)
    one = commands.add_parser("admin", help=admin.__doc__)
    one.add_argument("email", nargs="?", default=ADMIN_EMAIL)
    one.add_argument("--first", action="store_true", help="do nothing when there is an active administrator already")
    one.set_defaults(run=admin)
    one = commands.add_parser("secrets", help=local_secrets.__doc__)
    one.add_argument("folder", type=Path)
    one.set_defaults(run=local_secrets)
    one = commands.add_parser("openapi", help=openapi.__doc__)
    one.set_defaults(run=openapi)
    one = commands.add_parser("seed", help=seed.__doc__)
    one.add_argument("--count", type=positive_number, default=SEED_COUNT, help="records per feature")
    one.set_defaults(run=seed)
    return root


def main() -> None:
    arguments = parser().parse_args()
    # As the first process of a container, one that does not say what to do at SIGTERM would not end at all.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        arguments.run(arguments)
    except ValidationError as invalid:
        sys.exit("\n".join(f"{'__'.join(map(str, one['loc'])).upper()}: {one['msg']}" for one in invalid.errors()))
    except OperationalError as outage:
        sys.exit(f"The database does not work: {outage.orig}")
    except ModuleNotFoundError as missing:
        if missing.name not in {"aiomysql", "pymysql"}:
            raise
        sys.exit(f"{missing}: MySQL and MariaDB need `pip install --require-hashes -r requirements-mysql.txt`")
    except (UnsafeSettings, feature.BadFeature, AppError, CommandError, ArgumentError, BadSetting) as refusal:
        sys.exit(str(refusal))


if __name__ == "__main__":
    main()
