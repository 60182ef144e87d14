"""The app's routes and the references by turns: requests a second, latency, processor time, SQL statements, ratios."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from tqdm import tqdm

from bench.cases import REFERENCES, Case
from bench.database import aside
from bench.load import SHORTLY, Ask, Found, Tail, load, ratio, steady, typical
from bench.servers import Server, reference, the_app
from bench.statements import counting, statements

TAIL = 5  # times p50
Targets = Mapping[str, tuple[Server, Ask]]
Runs = Mapping[str, Sequence[Found]]


class Verdicts(list[bool]):
    """Whether each target was met, printed as they come."""

    def say(self, good: bool, text: str) -> None:
        self.append(good)
        print(f"{'✔' if good else '✘'} {text}", flush=True)


@contextmanager
def references(cases: Sequence[Case], database: str) -> Iterator[dict[str, Server]]:
    """The servers that these cases are compared with, by the name of their module."""
    asks = dict(REFERENCES[case.reference] for case in cases)
    with ExitStack() as stack:
        yield {module: stack.enter_context(reference(module, ask.path, database)) for module, ask in asks.items()}


def targets(cases: Sequence[Case], app: Server, ours: Mapping[str, Ask], others: Mapping[str, Server]) -> Targets:
    """Whom to ask what, each case after its reference."""
    found = {}
    for case in cases:
        module, ask = REFERENCES[case.reference]
        found[case.reference] = others[module], ask
        found[case.name] = app, ours[case.name]
    return found


def measure(asked: Targets, turns: int, seconds: float) -> Runs:
    """By turns, so that all meet the same noise."""
    for server, ask in asked.values():  # what is slow only once
        load(server, ask, SHORTLY)
    runs = [(name, load(*asked[name], seconds)) for name in tqdm([*asked] * turns, unit="run", disable=None)]
    return {name: [found for other, found in runs if other == name] for name in asked}


def count(cases: Sequence[Case], ours: Mapping[str, Ask], environment: Mapping[str, str]) -> dict[str, float]:
    """SQL statements per request, of processes that reach the database through what counts them."""
    with (
        counting(environment["DATABASE_URL"]) as (url, proxy),
        the_app(environment, DATABASE_URL=url) as app,
        references(cases, url) as others,
    ):
        asked = targets(cases, app, ours, others)
        return {name: statements(proxy, server, ask) for name, (server, ask) in asked.items()}


def table(cases: Sequence[Case], runs: Runs, counts: Mapping[str, float]) -> None:
    """The median of each figure, and of the ratios in each turn."""
    compared = {case.name: case.reference for case in cases}
    print(f"{'':12} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'CPU µs':>8} {'SQL':>5}  of the reference (by CPU)")
    for name, found in runs.items():
        one = typical(found)
        line = f"{name:12} {one.rate:10.0f} {one.p50:8.2f} {one.p99:8.2f} {one.cpu:8.0f} {counts[name]:5.1f}"
        if other := compared.get(name):
            by_cpu = ratio((run.cpu for run in runs[other]), (run.cpu for run in found))
            line += f"  {_rates(runs, name, other):6.1%} of {other} ({by_cpu:.1%})"
        print(line)
    print()


def judge(cases: Sequence[Case], runs: Runs, counts: Mapping[str, float], verdicts: Verdicts) -> None:
    for case in cases:
        reached = _rates(runs, case.name, case.reference)
        right = (counts[case.name] >= 1) == case.asks_database
        text = f"{case.says}: {reached:.1%} of {case.reference} (target: at least {case.target:.0%})"
        text += "" if right else f", SQL statements: {counts[case.name]}"
        verdicts.say(reached >= case.target and right, text)


def _rates(runs: Runs, name: str, other: str) -> float:
    return ratio((run.rate for run in runs[name]), (run.rate for run in runs[other]))


def tails(asked: Targets, database: str, seconds: float, turns: int, verdicts: Verdicts) -> None:
    """The slowest hundredth when there is time for all of them; a reference's says what the machine adds to it."""
    runs: dict[str, list[tuple[Tail, float]]] = {name: [] for name in asked}
    for name in tqdm([*asked] * turns, unit="run", disable=None):
        half = load(*asked[name], SHORTLY).rate / 2  # of what the machine can do at this moment
        with aside(database):
            runs[name].append((steady(*asked[name], half, seconds), half))
    for name, found in runs.items():
        found.sort(key=_times)
        (best, _), (middle, rate) = found[0], found[turns // 2]
        text = f"{name} at {rate:.0f} requests/s, half of its most: "
        text += f"p99 {middle.p99:.2f} ms, {middle.times:.1f} times p50 (in the best run {best.times:.1f}"
        if name in REFERENCES:
            print(f"  {text})", flush=True)
        else:
            verdicts.say(middle.times <= TAIL, f"{text}; target: at most {TAIL})")


def _times(found: tuple[Tail, float]) -> float:
    return found[0].times
