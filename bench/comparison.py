"""The app's routes and the references by turns: requests a second, latency, processor time, SQL statements, ratios."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from tqdm import tqdm

from bench.cases import REFERENCES, Case
from bench.load import SHORTLY, Ask, Found, load, steady, typical
from bench.servers import Server, reference, the_app
from bench.statements import counting, statements

Targets = Mapping[str, tuple[Server, Ask]]


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
    """Whom to ask what, each case next to its reference."""
    found = {}
    for case in cases:
        module, ask = REFERENCES[case.reference]
        found[case.reference] = others[module], ask
        found[case.name] = app, ours[case.name]
    return found


def measure(asked: Targets, turns: int, seconds: float) -> dict[str, Found]:
    """By turns, so that all meet the same noise: the median of each figure."""
    for server, ask in asked.values():  # what is slow only once
        load(server, ask, SHORTLY)
    runs = [(name, load(*asked[name], seconds)) for name in tqdm([*asked] * turns, unit="run", disable=None)]
    return {name: typical(found for other, found in runs if other == name) for name in asked}


def count(cases: Sequence[Case], ours: Mapping[str, Ask], environment: Mapping[str, str]) -> dict[str, float]:
    """SQL statements per request, of processes that reach the database through what counts them."""
    with (
        counting(environment["DATABASE_URL"]) as (url, proxy),
        the_app(environment, DATABASE_URL=url) as app,
        references(cases, url) as others,
    ):
        asked = targets(cases, app, ours, others)
        return {name: statements(proxy, server, ask) for name, (server, ask) in asked.items()}


def table(cases: Sequence[Case], found: Mapping[str, Found], counts: Mapping[str, float]) -> None:
    compared = {case.name: case.reference for case in cases}
    print(f"{'':12} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'CPU µs':>8} {'SQL':>5}  of the reference (by CPU)")
    for name, one in found.items():
        line = f"{name:12} {one.rate:10.0f} {one.p50:8.2f} {one.p99:8.2f} {one.cpu:8.0f} {counts[name]:5.1f}"
        if other := found.get(compared.get(name, "")):
            line += f"  {one.rate / other.rate:6.1%} of {compared[name]} ({other.cpu / one.cpu:.1%})"
        print(line)
    print()


def judge(cases: Sequence[Case], found: Mapping[str, Found], counts: Mapping[str, float], verdicts: Verdicts) -> None:
    for case in cases:
        ratio = found[case.name].rate / found[case.reference].rate
        right = (counts[case.name] >= 1) == case.asks_database
        text = f"{case.says}: {ratio:.1%} of {case.reference} (target: at least {case.target:.0%})"
        verdicts.say(ratio >= case.target and right, text if right else f"{text}, SQL statements: {counts[case.name]}")


def tails(asked: Targets, found: Mapping[str, Found], seconds: float, turns: int, verdicts: Verdicts) -> None:
    """The slowest hundredth when there is time for all of them; a reference's says what the machine adds to it."""
    for name, (server, ask) in asked.items():
        rate = found[name].rate / 2
        runs = [steady(server, ask, rate, seconds) for _ in range(turns)]
        p50, p99 = sorted(runs, key=lambda run: run[1] / run[0])[turns // 2]
        text = f"{name} at {rate:.0f} requests/s, half of its most: p99 {p99:.2f} ms, {p99 / p50:.1f} times p50"
        if name in REFERENCES:
            print(f"  {text} ({p50:.2f} ms)")
        else:
            verdicts.say(p99 <= 5 * p50, f"{text} ({p50:.2f} ms; target: at most 5 times)")
