"""What N replicas bear: queueing formulas (M/M/c, Erlang C), a small simulation to check them by, and what gives first.

A replica is one process on one core. Requests arrive at random; each kind takes its measured time of the core.
"""

import argparse
import heapq
import math
import random
from collections.abc import Sequence
from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of request: milliseconds of a core that one takes (measured), and its share of all requests."""

    service_ms: float
    share: float
    database: bool = True
    writes: bool = False


# From `./scripts/simulate-scaling --measure --seconds 5 --database postgresql://…`. docs/explanation/scaling.md shows
# these numbers; a test compares them. The shares are an assumption: put in yours.
MEASURED = {
    "health": Kind(0.10, 0.05, database=False),
    "read": Kind(0.30, 0.60),
    "list": Kind(0.59, 0.25),
    "create": Kind(0.46, 0.10, writes=True),
}
RESERVED = 3  # connections that PostgreSQL keeps for superusers


def erlang_c(servers: int, load: float) -> float:
    """The probability that a request must wait, at `load` < servers: arrival rate times service time (Erlang, 1917)."""
    blocked = 1.0  # Erlang B, by its recursion, which does not overflow
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked / (1 - load / servers * (1 - blocked))


def mean_wait(servers: int, load: float, service: float) -> float:
    """Mean time in the queue, in the unit of `service`; infinite when there is more work than servers."""
    return math.inf if load >= servers else erlang_c(servers, load) * service / (servers - load)


def slower_than(time: float, servers: int, load: float, service: float) -> float:
    """The share of requests whose waiting and service take longer than `time`, first come first served."""
    passed, spare = time / service, servers - 1 - load
    waiting = passed if abs(spare) < 1e-9 else -math.expm1(-passed * spare) / spare
    return math.exp(-passed) * (1 + erlang_c(servers, load) * waiting)


def percentile(share: float, servers: int, load: float, service: float) -> float:
    """The time within which this share of requests is answered, in the unit of `service`."""
    if load >= servers:
        return math.inf
    low, high = 0.0, service
    while slower_than(high, servers, load, service) > 1 - share:
        high *= 2
    while high - low > service * 1e-6:
        middle = (low + high) / 2
        low, high = (middle, high) if slower_than(middle, servers, load, service) > 1 - share else (low, middle)
    return high


def simulate(servers: int, rate: float, kinds: Sequence[Kind], requests: int, seed: int) -> tuple[list[float], float]:
    """Play `requests` arrivals through one queue: the sorted response times, and the mean wait, in milliseconds.

    `rate` is per millisecond. The time that a request takes is drawn around the mean of its kind (exponential).
    """
    chance = random.Random(seed)  # noqa: S311  nothing secret: the same seed gives the same numbers
    drawn = chance.choices(kinds, [kind.share for kind in kinds], k=requests)
    free = [0.0] * servers  # when each server is done with what it has: a heap
    now = waited = 0.0
    times = []
    for kind in drawn:
        now += chance.expovariate(rate)
        wait = max(0.0, free[0] - now)
        service = chance.expovariate(1 / kind.service_ms)
        heapq.heapreplace(free, now + wait + service)
        waited += wait
        times.append(wait + service)
    return sorted(times), waited / requests


def peak(mean: float) -> int:
    """How many are busy at once, hardly ever exceeded: three standard deviations above a Poisson mean."""
    return math.ceil(mean + 3 * math.sqrt(mean))


HEADS: tuple[str, ...] = (
    *("replicas", "requests/s", "use", "wait ms", "p50 ms", "p95 ms", "p99 ms", "p99 alone", "p99 simulated"),
    *("connections busy/kept/most", "writes/s", "what gives"),
)


def line(options: argparse.Namespace, kinds: Sequence[Kind], replicas: int) -> str:
    """What so many replicas do, below the heads above."""
    service = sum(kind.share * kind.service_ms for kind in kinds)
    rate = options.rate / 1000 if options.rate else replicas * options.use / service  # per millisecond
    load = rate * service
    wait = mean_wait(replicas, load, service)
    p50, p95, p99 = (percentile(share, replicas, load, service) + options.io_ms for share in (0.5, 0.95, 0.99))
    alone = percentile(0.99, 1, load / replicas, service) + options.io_ms
    simulated = math.inf
    if load < replicas:
        times, _ = simulate(replicas, rate, kinds, options.requests, options.seed)
        simulated = times[int(len(times) * 0.99)] + options.io_ms
    busy = rate * sum(kind.share for kind in kinds if kind.database) * (wait + service + options.io_ms)  # Little's law
    kept, most = replicas * options.pool_size, replicas * (options.pool_size + options.max_overflow)
    writes = rate * 1000 * sum(kind.share for kind in kinds if kind.writes)
    gives = {
        "the cores": load >= replicas,
        "PostgreSQL's connections": most > options.max_connections - RESERVED,
        "the primary's writes": writes > options.primary_writes,
    }
    cells = [f"{replicas}", f"{rate * 1000:.0f}", f"{load / replicas:.0%}", f"{wait:.2f}"]
    cells += [f"{time:.1f}" for time in (p50, p95, p99, alone, simulated)]
    cells += [f"{peak(busy) if busy < math.inf else '∞'}/{kept}/{most}", f"{writes:.0f}"]
    cells.append(", ".join(name for name, short in gives.items() if short) or "nothing")
    return "  ".join(cell.rjust(len(head)) for cell, head in zip(cells, HEADS, strict=True))


def table(options: argparse.Namespace, kinds: dict[str, Kind]) -> list[str]:
    service = sum(kind.share * kind.service_ms for kind in kinds.values())
    writes = 1000 / service * sum(kind.share for kind in kinds.values() if kind.writes)
    mix = ", ".join(f"{name} {kind.share:.0%} of {kind.service_ms:g} ms" for name, kind in kinds.items())
    each = options.pool_size + options.max_overflow
    direct = (options.max_connections - RESERVED) // each
    enough = f"{options.primary_writes / writes / options.use:.0f}" if writes else "any number of"
    return [
        f"Mix: {mix}",
        f"One core: {1000 / service:.0f} requests/s at full use, {service:.2f} ms each",
        f"{options.max_connections} connections, {each} per replica at most: {direct} replicas without a pooler",
        f"{options.primary_writes} writes/s on one primary: {enough} replicas at {options.use:.0%} use",
        "",
        "p99: of a balancer that knows who is idle; alone: of one that does not; simulated: the former, kind by kind.",
        "connections: busy at peaks / kept by the pools / the most they open. What gives: what there is too little of.",
        "",
        "  ".join(HEADS),
        *(line(options, [*kinds.values()], replicas) for replicas in options.replicas),
    ]


def numbers(text: str) -> dict[str, float]:
    return {name: float(value) for name, _, value in (part.partition("=") for part in text.split(","))}


def whole_numbers(text: str) -> list[int]:
    return [int(one) for one in text.split(",")]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="./scripts/simulate-scaling", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    counts = [1, 2, 10, 1000]
    parser.add_argument("--replicas", type=whole_numbers, default=counts, help="how many, separated by commas")
    parser.add_argument("--rate", type=float, help="requests/s in all, in place of --use")
    parser.add_argument("--use", type=float, default=0.7, help="how busy a core may be; the autoscaler's target")
    parser.add_argument("--service", type=numbers, default={}, help="milliseconds of a core: read=2.1,list=4")
    parser.add_argument(
        "--mix", type=numbers, default={}, help="parts of the requests, and no others: read=60,create=10"
    )
    parser.add_argument("--io-ms", type=float, default=1.0, help="waiting for the database, which takes no core")
    parser.add_argument("--pool-size", type=int, default=15, help="DATABASE__POOL_SIZE")
    parser.add_argument("--max-overflow", type=int, default=0, help="DATABASE__MAX_OVERFLOW")
    parser.add_argument("--max-connections", type=int, default=100, help="PostgreSQL's own default")
    parser.add_argument("--primary-writes", type=int, default=5000, help="commits/s of the primary; an assumption")
    parser.add_argument("--requests", type=int, default=100_000, help="how many to simulate per line")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation")
    parser.add_argument("--measure", action="store_true", help="measure the service times here first; takes a minute")
    parser.add_argument("--database", help="an empty database to measure on, in place of a temporary SQLite file")
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to measure each kind")
    options = parser.parse_args(arguments)
    measured: dict[str, float] = {}
    if options.measure:
        from scripts import one_core  # noqa: PLC0415  needs packages, which all else here does not

        measured = one_core.measure(options.database, options.seconds)
    service = {name: kind.service_ms for name, kind in MEASURED.items()} | measured | options.service
    mix = {name: options.mix.get(name, 0) if options.mix else kind.share for name, kind in MEASURED.items()}
    if unknown := {*options.service, *options.mix} - {*MEASURED}:
        parser.error(f"no such kind: {', '.join(sorted(unknown))}; there are {', '.join(MEASURED)}")
    kinds = {
        name: kind._replace(service_ms=service[name], share=mix[name] / sum(mix.values()))
        for name, kind in MEASURED.items()
        if mix[name]
    }
    print("\n".join(table(options, kinds)))


if __name__ == "__main__":
    main()
