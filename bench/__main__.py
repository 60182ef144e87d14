"""How fast the app is beside servers that do next to nothing: ratios of one run, which outlive the machine."""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import httpx2
from alembic import command

from backend.testing import run_alembic, start_postgresql, start_redis, temporary_database
from bench import whole
from bench.cases import CASES, prepare
from bench.comparison import Verdicts, count, judge, measure, references, table, tails, targets
from bench.database import analyze
from bench.load import Ask, wrk
from bench.profiler import profile
from bench.servers import Server, production, the_app

MOST_WATCHING = 60  # µs of a core that all who look at a request may take together


@contextmanager
def services(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """The URLs of a migrated PostgreSQL database of our own, and of Redis."""
    with ExitStack() as stack:
        for name, url, start in (
            ("TEST_POSTGRESQL_URL", options.database_url, start_postgresql),
            ("TEST_REDIS_URL", options.redis_url, start_redis),
        ):
            if url:
                os.environ[name] = url
            elif name not in os.environ:
                start(stack.callback)
        url = stack.enter_context(temporary_database("postgresql"))
        run_alembic(url, lambda alembic: command.upgrade(alembic, "head"))
        yield url, os.environ["TEST_REDIS_URL"]


async def prepared(server: Server) -> dict[str, Ask]:
    async with httpx2.AsyncClient(base_url=server.base, timeout=30) as client:
        return await prepare(client)


def whole_process(
    app: Server, ours: Mapping[str, Ask], environment: Mapping[str, str], turns: int, requests: int, verdicts: Verdicts
) -> None:
    seconds = whole.import_seconds()
    verdicts.say(seconds < 1.5, f"import of backend.main: {seconds:.2f} s (target: below 1.5 s)")
    for name, grown, bare in whole.divided(app, ours, environment, turns):
        text = f"CPU of a request for {name} with two workers: {grown:.0%} of one worker's, a bare server's {bare:.0%}"
        verdicts.say(grown <= bare * 1.1, f"{text} (target: at most 110% of the latter)")
    if names := whole.watchers():
        added = whole.watching(app, ours, environment, turns)
        each = ", ".join(
            f"{cost:.0f} µs of a request for {case}" for case, cost in zip(whole.CHEAP, added, strict=True)
        )
        verdicts.say(
            max(added) <= MOST_WATCHING, f"CPU of {', '.join(names)}: {each} (target: at most {MOST_WATCHING} µs)"
        )
    early, late, answered = whole.growth(app, ours, requests // 10, requests)
    text = f"memory after {answered} requests: {late:.0f} MiB, {late / early:.0%} of what it was after a tenth"
    verdicts.say(late <= early * 1.1, f"{text} (target: at most 110 % after {requests})")


def bench(options: argparse.Namespace, environment: Mapping[str, str], verdicts: Verdicts) -> None:
    wrk()
    cases = [case for case in CASES if case.name in (options.only or [one.name for one in CASES])]
    with the_app(environment) as app, references(cases, environment["DATABASE_URL"]) as others:
        ours = asyncio.run(prepared(app))
        analyze(environment["DATABASE_URL"])
        asked = targets(cases, app, ours, others)
        found = measure(asked, options.turns, options.seconds)
        counts = count(cases, ours, environment)
        table(cases, found, counts)
        print(f"cold start, until /ready says so: {app.started_in:.1f} s\n")
        judge(cases, found, counts, verdicts)
        tails(asked, environment["DATABASE_URL"], options.seconds, options.turns, verdicts)
        if not options.only:
            whole_process(app, ours, environment, options.turns, options.requests, verdicts)
        if options.features:
            whole.feature_costs(app, ours, environment, options.turns)


def main(arguments: Sequence[str] | None = None) -> None:
    names = [case.name for case in CASES]
    parser = argparse.ArgumentParser(prog="./scripts/bench", description=__doc__)
    parser.add_argument(
        "--only", default=[], type=lambda text: text.split(","), help=f"these, separated by commas: {', '.join(names)}"
    )
    parser.add_argument("--seconds", type=float, default=4, help="of each run, of which there are many (default 4)")
    parser.add_argument(
        "--turns",
        type=int,
        default=3,
        help="runs of each, of which the median counts (default 3)",
    )
    parser.add_argument("--requests", type=int, default=200_000, help="after which the memory is compared")
    parser.add_argument("--database-url", default="", help="a PostgreSQL server; else TEST_POSTGRESQL_URL, or our own")
    parser.add_argument("--redis-url", default="", help="a Redis server; else TEST_REDIS_URL, or one of our own")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the app")
    parser.add_argument("--features", action="store_true", help="what each feature costs, too; takes some minutes more")
    parser.add_argument("--profile", choices=names, help="where the time of one case goes, in place of all else")
    parser.add_argument("--check", action="store_true", help="fail when a target is missed")
    options = parser.parse_args(arguments)
    if unknown := {*options.only} - {*names}:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    verdicts = Verdicts()
    with services(options) as (url, redis):
        environment = production(url, redis, dict(one.split("=", 1) for one in options.set))
        if options.profile:
            profile(options.profile, environment, options.seconds)
        else:
            bench(options, environment, verdicts)
    if options.check and not all(verdicts):
        sys.exit(1)


if __name__ == "__main__":
    main()
