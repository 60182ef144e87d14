"""The numbers of ./scripts/simulate-scaling: the formulas against textbook values, and the simulation against them."""

import math
import re

import pytest

from backend.testing import ROOT
from scripts import scaling
from scripts.scaling import Kind, erlang_c, mean_wait, percentile, simulate


@pytest.mark.parametrize(
    ("servers", "load", "probability"),
    [(1, 0.7, 0.7), (2, 1.5, 9 / 14), (3, 2, 4 / 9), (5, 4, 0.5541), (10, 8, 0.4092), (1000, 500, 0.0)],
)
def test_the_probability_of_waiting_is_the_textbooks(servers: int, load: float, probability: float) -> None:
    assert erlang_c(servers, load) == pytest.approx(probability, abs=1e-4)


def test_one_server_waits_as_the_textbooks_say() -> None:
    assert mean_wait(1, 0.8, 10) == pytest.approx(40)  # use / (1 - use) service times
    assert percentile(0.99, 1, 0.8, 10) == pytest.approx(50 * math.log(100), rel=1e-4)  # exponential
    assert mean_wait(2, 1.5, 10) == pytest.approx(9 / 14 * 10 / 0.5)


def test_more_work_than_servers_never_ends() -> None:
    assert (mean_wait(2, 2.0, 1), percentile(0.5, 2, 2.1, 1)) == (math.inf, math.inf)


def test_one_queue_for_two_servers_beats_two_queues() -> None:
    assert percentile(0.99, 2, 1.4, 1) < percentile(0.99, 1, 0.7, 1)


@pytest.mark.parametrize(("servers", "use"), [(1, 0.7), (4, 0.8), (2, 0.5)])
def test_the_simulation_agrees_with_the_formulas(servers: int, use: float) -> None:
    service = 2.0
    times, wait = simulate(servers, servers * use / service, [Kind(service, 1)], requests=150_000, seed=1)
    assert wait == pytest.approx(mean_wait(servers, servers * use, service), rel=0.05)
    for share in (0.5, 0.95, 0.99):
        expected = percentile(share, servers, servers * use, service)
        assert times[int(len(times) * share)] == pytest.approx(expected, rel=0.05), share


def test_the_same_seed_gives_the_same_numbers() -> None:
    first, second = (simulate(2, 0.5, [Kind(1, 1), Kind(9, 1)], requests=100, seed=7) for _ in range(2))
    assert first == second


def test_it_says_what_gives_first(capsys: pytest.CaptureFixture[str]) -> None:
    times = ("--service", "read=2,list=4,create=4,health=1", "--mix", "read=80,create=20")
    scaling.main(["--requests", "1000", "--replicas", "1,8,400", *times])
    one, eight, many = capsys.readouterr().out.splitlines()[-3:]
    assert one.endswith("  nothing")
    assert eight.endswith("  PostgreSQL's connections")
    assert many.endswith("  PostgreSQL's connections, the primary's writes")
    scaling.main(["--replicas", "2", "--rate", "100000"])
    assert "the cores" in capsys.readouterr().out.splitlines()[-1]


def test_a_kind_that_is_not_there_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        scaling.main(["--mix", "sing=1"])
    assert "no such kind: sing" in capsys.readouterr().err


def test_the_documentation_shows_the_measured_numbers() -> None:
    text = (ROOT / "docs/explanation/scaling.md").read_text()
    shown = dict(re.findall(r"^\| `(\w+)` \|.*\| ([\d.]+) \|$", text, re.MULTILINE))
    assert {name: float(ms) for name, ms in shown.items()} == {
        name: kind.service_ms for name, kind in scaling.MEASURED.items()
    }
