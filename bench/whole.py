"""What is true of the process and of none of its routes: how fast it is there, how large it gets, how it divides."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from itertools import cycle
from statistics import median

from backend.core import feature
from backend.features import FEATURES
from bench.cases import CASES, REFERENCES
from bench.load import SHORTLY, Ask, load, ratio
from bench.servers import Server, reference, the_app
from scripts.one_core import ROOT

IMPORT = "import time; began = time.perf_counter(); import backend.main; print(time.perf_counter() - began)"
CHEAP = ("live", "me")  # where the cost of a feature is not lost in what a database does
DIVIDED = ("live", "me", "item")
WATCHING = ("metrics", "analytics", "access_log")  # what looks at every request


def import_seconds() -> float:
    """Of `backend.main`, in a fresh interpreter: the quickest of three, as all else is other work on the machine."""
    runs = [subprocess.run([sys.executable, "-c", IMPORT], cwd=ROOT, capture_output=True, check=True) for _ in range(3)]
    return min(float(run.stdout) for run in runs)


def growth(server: Server, asks: Mapping[str, Ask], first: int, last: int) -> tuple[float, float, int]:
    """MiB after the first so many requests, of every kind in turn, and after the last; how many those were."""
    early, answered = 0.0, 0.0
    for ask in cycle(asks.values()):
        answered += load(server, ask, SHORTLY).rate * SHORTLY
        if not early and answered >= first:
            early = server.memory()
        if answered >= last:
            break
    return early, server.memory(), round(answered)


def divided(
    one: Server, asks: Mapping[str, Ask], environment: Mapping[str, str], turns: int
) -> Iterator[tuple[str, float, float]]:
    """The processor time of a request with two workers, as a share of the one that it takes with one: ours, and bare.

    A bare server's two processes share nothing: what they lose is lost to the machine, whose cores share caches.
    """
    with the_app(environment, SERVER__WORKERS="2") as two:
        for name in DIVIDED:
            case = next(case for case in CASES if case.name == name)
            module, ask = REFERENCES[case.reference]
            database = environment["DATABASE_URL"]
            with reference(module, ask.path, database) as bare, reference(module, ask.path, database, 2) as bare_two:
                ours, bares = _cpu(two, one, asks[name], turns), _cpu(bare_two, bare, ask, turns)
            yield name, ratio(*ours), ratio(*bares)


def _cpu(this: Server, that: Server, ask: Ask, turns: int) -> tuple[list[float], list[float]]:
    """µs of a request to each of the two, asked by turns."""
    for server in (this, that):  # what is slow only once
        load(server, ask, 1)
    pairs = [(load(this, ask, SHORTLY), load(that, ask, SHORTLY)) for _ in range(turns)]
    return [mine.cpu for mine, _ in pairs], [other.cpu for _, other in pairs]


def watchers() -> list[str]:
    """Those of the features that look at every request that there are, and what needs them."""
    found: list[str] = []
    for one in feature.load("backend.features", FEATURES).features:  # each after those that it needs
        if one.name in WATCHING or set(one.needs).intersection(found):
            found.append(one.name)
    return found


def watching(everything: Server, asks: Mapping[str, Ask], environment: Mapping[str, str], turns: int) -> list[float]:
    """µs of the core that these add to each of the cheap requests: the median of what was measured by turns."""
    off = ",".join(filter(None, (environment.get("FEATURES_OFF"), *watchers())))
    with the_app(environment, FEATURES_OFF=off) as without:
        return [median(_added(everything, without, asks[case], 2 * turns + 1)) for case in CHEAP]


def removable() -> list[str]:
    """Features that no other needs."""
    features = feature.load("backend.features", FEATURES).features
    needed = {name for one in features for name in one.needs}
    return [name for name in FEATURES if name not in needed]


def feature_costs(everything: Server, asks: Mapping[str, Ask], environment: Mapping[str, str], turns: int) -> None:
    """Print what each feature adds to a request: all on, minus all but this one, measured by turns."""
    print(f"{'µs of the core per request':36} " + " ".join(f"{name:>18}" for name in CHEAP))
    for name in removable():
        off = ",".join(filter(None, (environment.get("FEATURES_OFF"), name)))
        with the_app(environment, FEATURES_OFF=off) as without:
            cells = [_difference(everything, without, asks[case], turns) for case in CHEAP]
        print(f"{name:36} " + " ".join(f"{cell:>18}" for cell in cells), flush=True)
    print()


def _difference(this: Server, that: Server, ask: Ask, turns: int) -> str:
    if not that.answers(ask.path, ask.headers):
        return "—"  # it is the feature that answers
    added = _added(this, that, ask, turns)
    return f"{median(added):+.0f} ({min(added):+.0f} … {max(added):+.0f})"


def _added(this: Server, that: Server, ask: Ask, turns: int) -> list[float]:
    """µs of a request to this that it does not take that, in each turn."""
    return [mine - other for mine, other in zip(*_cpu(this, that, ask, turns), strict=True)]
