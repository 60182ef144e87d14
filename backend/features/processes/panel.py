"""How the processes do, together and each, and what failed, for the status page."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from fastapi import FastAPI
from sqlmodel import col, select

from backend.core.figures import Reading
from backend.core.models import utc_now
from backend.core.status import UNKNOWN, Block, Panel, Stat, Stats, Table, Tone, Window, milliseconds, number, share
from backend.core.words import _
from backend.features.processes.models import FailedAnswer, ProcessReport
from backend.features.processes.settings import ProcessesSettings

MOST = 500  # processes that are looked at
ROWS = 50  # that are shown
FAILURES = 20
LATE = 0.05  # seconds of the event loop's lag that are worth a look
FULL = 0.8  # of all database connections


def together(app: FastAPI, reports: Sequence[ProcessReport]) -> dict[str, Reading]:
    """The figures of all processes as one; those of which at least one knows."""
    how = {figure.name: max if figure.together == "max" else _add for figure in app.state.figures.all}
    summed: dict[str, dict[tuple[str, ...], float]] = {}
    for report in reports:
        for name, reading in report.figures.items():
            series = summed.setdefault(name, {})
            for labels, value in reading:
                key = tuple(labels)
                series[key] = how.get(name, _add)(series[key], value) if key in series else value
    return dict(summed)


def _add(one: float, other: float) -> float:
    return one + other


def _hit_rate(requests: Reading) -> float | None:
    found = sum(count for (_namespace, result), count in requests.items() if result != "miss")
    asked = sum(requests.values())
    return found / asked if asked else None


def _one(figures: Mapping[str, Reading], name: str, *labels: str) -> float | None:
    return figures[name].get(labels, 0) if name in figures else None


def _database(figures: Mapping[str, Reading]) -> list[Stat]:
    in_use, waiting = _one(figures, "database_connections", "in_use"), _one(figures, "database_connections_waiting")
    limit = _one(figures, "database_connections_limit")
    if in_use is None or not limit:
        return []
    tone: Tone = "bad" if waiting else "fair" if in_use > FULL * limit else ""
    value, note = f"{number(in_use)} of {number(limit)}", _("{count} waiting").format(count=number(waiting or 0))
    return [Stat(label=_("Database connections"), value=value, note=note, tone=tone)]


def _mails(figures: Mapping[str, Reading]) -> list[Stat]:
    waiting, sent = _one(figures, "mails_waiting"), _one(figures, "mails", "sent")
    failed = _one(figures, "mails", "failed") or 0
    if waiting is None:
        return []
    note = _("{sent} sent, {failed} lost").format(sent=number(sent or 0), failed=number(failed))
    return [Stat(label=_("Mails waiting"), value=number(waiting), note=note, tone="bad" if failed else "")]


def _stats(reports: Sequence[ProcessReport], figures: Mapping[str, Reading]) -> list[Stat]:
    """Of those figures that there are: each belongs to a part that may be taken out."""
    hosts, since_start = len({report.host for report in reports}), _("since they started")
    stats = [
        Stat(label=_("Processes"), value=number(len(reports)), note=_("hosts: {count}").format(count=hosts)),
        Stat(label=_("Requests each second"), value=number(sum(report.per_second for report in reports))),
        Stat(label=_("In progress"), value=number(_one(figures, "http_requests_in_progress") or 0)),
        *_database(figures),
    ]
    if "cache_requests" in figures:
        stats.append(
            Stat(label=_("Found in the cache"), value=share(_hit_rate(figures["cache_requests"])), note=since_start)
        )
    if (lag := _one(figures, "event_loop_lag_seconds")) is not None:
        tone: Tone = "fair" if lag > LATE else ""
        stats.append(Stat(label=_("Event loop late by"), value=milliseconds(lag), note=_("the latest"), tone=tone))
    for name, label in (("load_shed", _("Refused as too many")), ("request_timeouts", _("Given up as too late"))):
        if (count := _one(figures, name)) is not None:
            stats.append(Stat(label=label, value=number(count), note=since_start))
    stats += _mails(figures)
    circuits = figures.get("circuit_state", {})
    opened = [name for (name, state), is_it in circuits.items() if state == "opened" and is_it]
    stats.append(Stat(label=_("Open circuits"), value=", ".join(opened) or _("none"), tone="bad" if opened else ""))
    return stats


def _own(report: ProcessReport, name: str) -> float | None:
    """One process's figure without labels; None where that process does not know it."""
    reading = report.figures.get(name)
    return float(reading[0][1]) if reading else None


def _moment(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S")


def _processes(reports: Sequence[ProcessReport]) -> Table:
    now, rows = utc_now(), []
    for one in reports[:ROWS]:
        in_progress, lag = _own(one, "http_requests_in_progress"), _own(one, "event_loop_lag_seconds")
        ago = max(0, int((now - one.seen_at).total_seconds()))
        rows.append((
            f"{one.host}:{one.pid}",
            one.version,
            _moment(one.started_at),
            _("{seconds} s ago").format(seconds=ago),
            number(one.per_second),
            UNKNOWN if in_progress is None else number(in_progress),
            milliseconds(lag),
            f"{number(one.memory / 2**20)} MiB",
        ))  # fmt: skip
    caption = _("Processes that run")
    if len(reports) > ROWS:
        caption = _("Processes that run: {shown} of {all}").format(shown=ROWS, all=len(reports))
    return Table(
        caption=caption,
        columns=(
            _("Host and process"), _("Version"), _("Started (UTC)"), _("Last seen"), _("Requests/s"), _("In progress"),
            _("Loop late by"), _("Memory"),
        ),
        rows=rows,
        empty=_("None has said anything lately."),
    )  # fmt: skip


def _failures(failures: Sequence[FailedAnswer]) -> Table:
    rows = [
        (_moment(one.at), one.status, one.error, one.request_id, f"{one.method} {one.route}", one.process)
        for one in failures
    ]
    return Table(
        caption=_("The last answers that failed"),
        columns=(_("When (UTC)"), _("Status"), _("Error"), _("Request id"), _("Request"), _("Process")),
        rows=rows,
        empty=_("None in this time."),
    )


async def _read(app: FastAPI, window: Window) -> Sequence[Block]:
    alive = col(ProcessReport.seen_at) >= utc_now() - ProcessesSettings.current().gone_after
    processes = select(ProcessReport).where(alive).order_by(col(ProcessReport.host), col(ProcessReport.pid))
    failed = select(FailedAnswer).where(col(FailedAnswer.at) >= window.since).order_by(col(FailedAnswer.id).desc())
    async with app.state.database.session(reading=True) as session:
        reports = (await session.exec(processes.limit(MOST))).all()
        failures = (await session.exec(failed.limit(FAILURES))).all()
    return [Stats(_stats(reports, together(app, reports))), _processes(reports), _failures(failures)]


PANEL = Panel(title=_("Processes"), read=_read, permission="processes:read")
