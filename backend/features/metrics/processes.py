"""What the server's processes use, summed over them, and which version of the app they run."""

import os
from collections.abc import Iterable
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class AppInfo(Collector):
    """A one with labels. (The library's own Info does not work with several processes.)"""

    def __init__(self, version: str, environment: str) -> None:
        self.family = GaugeMetricFamily("app_info", "The app that runs; always 1.", labels=("version", "environment"))
        self.family.add_metric((version, environment), 1)

    def collect(self) -> Iterable[Metric]:
        return [self.family]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _pid(file: Path) -> int:
    return int(file.stem.rpartition("_")[2])


def _workers(folder: str) -> dict[int, Path]:
    """Process id → the file in which that process keeps what it has in progress."""
    return {_pid(file): file for file in Path(folder).glob("gauge_livesum_*.db")}


def forget_the_dead(folder: str) -> None:
    """Forget what processes that were killed had in progress; what they had counted stays."""
    for file in Path(folder).glob("gauge_live*.db"):
        if not _is_alive(_pid(file)):
            file.unlink(missing_ok=True)


def _cpu_seconds_of_dead_children(pid: int) -> float:
    """Without it, the sum would fall when a worker ends, which looks like a restart of everything (see proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


class Processes(Collector):
    """`process_*` of this process or, where several share `folder`, of their parent and all of them together."""

    def __init__(self, folder: str | None) -> None:
        self.folder = folder

    def describe(self) -> Iterable[Metric]:
        return []  # so that registering does not collect

    def collect(self) -> Iterable[Metric]:
        if self.folder is None:
            return ProcessCollector(registry=None).collect()
        parent = os.getppid()
        summed: dict[str, Metric] = {}
        for pid in (parent, *_workers(self.folder)):
            for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                _add(metric, summed.setdefault(metric.name, metric))
        cpu = summed.get("process_cpu_seconds")
        if cpu is not None:
            cpu.samples[0] = cpu.samples[0]._replace(value=cpu.samples[0].value + _cpu_seconds_of_dead_children(parent))
        return summed.values()


def _add(metric: Metric, total: Metric) -> None:
    """The newest start is the one of interest: it shows that a process was started anew. All else adds up."""
    if metric is not total:
        values = (metric.samples[0].value, total.samples[0].value)
        value = max(values) if metric.name == "process_start_time_seconds" else sum(values)
        total.samples[0] = total.samples[0]._replace(value=value)
