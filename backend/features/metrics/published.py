"""The figures that other parts keep (`core/figures.py`), as Prometheus' gauges and counters."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from backend.core.figures import Figure, Figures


def _made(figure: Figure, registry: CollectorRegistry | None) -> Gauge | Counter:
    if figure.kind == "counter":
        return Counter(figure.name, figure.help, figure.labels, registry=registry)
    if figure.together == "max":
        return Gauge(figure.name, figure.help, figure.labels, registry=registry, multiprocess_mode="livemax")
    return Gauge(figure.name, figure.help, figure.labels, registry=registry, multiprocess_mode="livesum")


class Published:
    """`publish()` copies what the figures say now. Several processes do so regularly: any may be asked for all."""

    def __init__(self, figures: Figures, registry: CollectorRegistry | None) -> None:
        self.figures = figures
        self.metrics = {figure.name: _made(figure, registry) for figure in figures.all}
        self.counted: dict[tuple[str, tuple[str, ...]], float] = {}

    def publish(self) -> None:
        for figure, reading in self.figures.read():
            metric = self.metrics[figure.name]
            for labels, value in reading.items():
                series = metric.labels(*labels) if figure.labels else metric
                if isinstance(series, Gauge):
                    series.set(value)
                else:
                    series.inc(value - self.counted.get((figure.name, labels), 0))
                    self.counted[figure.name, labels] = value
