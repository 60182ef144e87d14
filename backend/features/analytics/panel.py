"""How the API is used, for the status page."""

from collections.abc import Sequence

from fastapi import FastAPI

from backend.core.status import Block, Chart, Line, Panel, Stat, Stats, Table, Window, milliseconds, number, share
from backend.core.words import _
from backend.features.analytics.service import Order, Point, Total, over_time, period, points, total_of, totals

ROUTES = 10
REFUSALS = (
    (429, _("Over a limit"), _("429: asked too often")),
    (503, _("Turned away"), _("503: busy, or an outage")),
)


def _milliseconds(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else value * 1000 for value in values]


def _table(caption: str, found: Sequence[Total]) -> Table:
    rows = [
        (
            f"{one.method} {one.route}",
            number(one.requests),
            share(one.errors / one.requests),
            *(milliseconds(value) for value in (one.p50, one.p95, one.p99)),
        )
        for one in found
    ]
    return Table(
        caption=caption,
        columns=(_("Route"), _("Requests"), _("Failed"), "p50", "p95", "p99"),
        rows=rows,
        empty=_("Nothing has been asked for in this time."),
    )


def _rates(series: Sequence[Point], step: int) -> Chart:
    return Chart(
        caption=_("Requests each second"),
        times=[one.start for one in series],
        lines=[
            Line(_("answered"), [one.requests / step for one in series]),
            Line(_("failed"), [one.errors / step for one in series]),
        ],
    )


async def _read(app: FastAPI, window: Window) -> Sequence[Block]:
    chosen = period(window.since, window.until)
    tables: tuple[tuple[str, Order], ...] = ((_("Slowest routes"), "mean"), (_("Busiest routes"), "requests"))
    async with app.state.database.session(reading=True) as session:
        statuses = await totals(session, since=chosen.since, until=chosen.until, by=("status",))
        tallies = await over_time(session, chosen)
        found = [
            await totals(
                session, since=chosen.since, until=chosen.until, by=("method", "route"), order=order, limit=ROUTES
            )
            for _caption, order in tables
        ]
    series, total = await points(tallies), total_of(tallies.values(), chosen.seconds)
    times = [one.start for one in series]
    by_status = {one.status: one.requests for one in statuses}
    failed = total.errors / total.requests if total.requests else None
    stats = [
        Stat(
            label=_("Requests"),
            value=number(total.requests),
            note=_("{rate} each second").format(rate=number(total.per_second)),
        ),
        Stat(
            label=_("Failed"),
            value=share(failed),
            note=_("{count} of them").format(count=number(total.errors)),
            tone="bad" if failed else "",
        ),
        *(
            Stat(label=name, value=milliseconds(value))
            for name, value in (("p50", total.p50), ("p95", total.p95), ("p99", total.p99))
        ),
        Stat(label=_("Of which the database"), value=milliseconds(total.mean_sql), note=_("on average")),
        *(Stat(label=label, value=number(by_status.get(status, 0)), note=note) for status, label, note in REFUSALS),
    ]
    rates = _rates(series, chosen.step)
    latencies = Chart(
        caption=_("How long answers take"),
        times=times,
        lines=[Line(name, _milliseconds([getattr(one, name) for one in series])) for name in ("p50", "p95", "p99")],
        unit="ms",
    )
    shown = [_table(caption, one) for (caption, _order), one in zip(tables, found, strict=True)]
    return [Stats(stats), rates, latencies, *shown]


async def _read_shortly(app: FastAPI, window: Window) -> Sequence[Block]:
    """For the console's first page."""
    chosen = period(window.since, window.until)
    async with app.state.database.session(reading=True) as session:
        tallies = await over_time(session, chosen)
    series, total = await points(tallies), total_of(tallies.values(), chosen.seconds)
    failed = total.errors / total.requests if total.requests else None
    stats = [
        Stat(label=_("Requests in 24 hours"), value=number(total.requests)),
        Stat(label=_("Failed"), value=share(failed), tone="bad" if failed else ""),
        Stat(label="p95", value=milliseconds(total.p95)),
    ]
    return [Stats(stats), _rates(series, chosen.step)]


HOME = Panel(title=_("Requests"), read=_read_shortly, permission="analytics:read")
PANEL = Panel(title=_("Traffic"), read=_read, permission="analytics:read")
