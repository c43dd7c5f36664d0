"""The report: one HTML file of a run, which needs no network and no other file."""

from collections.abc import Mapping
from datetime import UTC, datetime

from harness import __version__
from harness.measure.durations import write_duration
from harness.records.verdict import Fate
from harness.report import page_findings, page_plots, page_sections, page_survive
from harness.report.document import asset, document
from harness.report.html import Html, details, table, tag
from harness.report.page_data import lives_of, packed, plain, timeline_of
from harness.report.page_sections import section
from harness.report.run_view import RunView


def page(view: RunView, cell_reports: Mapping[str, str] | None = None) -> str:
    """Return the report of a run.

    Args:
        view: the run.
        cell_reports: of `harness survive`, the addresses of the cells' own reports, by their folders.
    """
    plots = timeline_of(view)
    scripts = [asset("uPlot.iife.min.js"), asset("report.js")] if view.audit is not None else []
    sections = [
        page_findings.findings(view),
        page_sections.accounting(view),
        page_survive.survival(view, cell_reports or {}),
        page_sections.load(view),
        _timeline(view),
        page_sections.faults(view),
        _latency(view),
        page_sections.workers(view),
        _tasks(view),
        page_sections.canvases(view),
        page_plots.ticks(view),
        page_sections.about(view),
    ]
    return document(
        f"{view.verdict.value}: {view.name}",
        tag("a", "To the findings", href="#findings", class_="skip") if view.audit is not None else None,
        _header(view),
        _navigation(sections),
        tag("main", sections, id="main"),
        _footer(view),
        tag("script", Html(plain(plots)), type="application/json", id="plots"),
        tag("script", Html(packed(lives_of(view))), type="text/plain", id="lives") if scripts else None,
        scripts=scripts,
        style=asset("uPlot.min.css") + asset("report.css"),
    )


def _header(view: RunView) -> Html:
    began = None
    if view.timeline is not None:
        moment = datetime.fromtimestamp(view.lives.base_t, UTC)
        took = write_duration(view.timeline.end_t - view.lives.base_t)
        began = tag("p", f"{view.kind}, first task sent at {moment:%Y-%m-%d %H:%M:%S} UTC, last event {took} later")
    return tag(
        "header",
        tag("p", tag("span", view.verdict.value, class_=f"badge large {view.verdict.value}"), class_="verdict"),
        tag("h1", view.sentence),
        tag("p", tag("code", view.name)),
        began or tag("p", view.kind),
        tag("ul", (tag("li", note) for note in view.notes), class_="notes") if view.notes else None,
    )


_NAMES = {
    "findings": "Findings",
    "accounting": "Accounting",
    "survive": "What survives",
    "load": "Load",
    "timeline": "Timeline",
    "faults": "Faults",
    "latency": "Latency",
    "workers": "Workers",
    "tasks": "Life of a task",
    "canvases": "Canvases",
    "ticks": "Ticks",
    "about": "The run",
}


def _navigation(sections: list[Html]) -> Html:
    there = "".join(sections)
    links = [
        tag("li", tag("a", text, href=f"#{name}")) for name, text in _NAMES.items() if f'<section id="{name}"' in there
    ]
    return tag("nav", tag("ul", links), aria_label="Sections")


def _timeline(view: RunView) -> Html:
    line = view.timeline
    if line is None or (view.audit is not None and view.audit.is_timelapse):
        return section("timeline", "Timeline", page_plots.nodes(view)) if view.tables.nodes else Html()
    base_t, rate = view.lives.base_t, 1 / line.bin_s
    shown = [stage for stage, values in line.stages.items() if any(values)]
    rows = []
    for number, t in enumerate(line.times):
        counts = (line.sent[number], line.started[number], line.finished[number], line.failed[number])
        if not any(counts) and number and line.backlog[number] == line.backlog[number - 1]:
            continue
        latencies = [line.stages[stage][number] for stage in shown]
        rows.append(
            (
                f"{t - base_t:.2f}",
                *(f"{count * rate:,.1f}" for count in counts),
                f"{line.backlog[number]:,}",
                *("" if one is None else write_duration(one[1]) for one in latencies),
            )
        )
    heads = (
        "until (s)",
        "sent/s",
        "begun/s",
        "ended/s",
        "failed/s",
        "backlog",
        *(f"{stage.value} p95" for stage in shown),
    )
    places = [
        tag("figure", tag("figcaption", text), tag("div", id=f"plot-{name}", class_="plot"))
        for name, text in (
            ("rates", "Tasks per second: sent, begun, ended, failed"),
            ("backlog", "Backlog: accepted by the broker, and not ended"),
            ("stages", "Seconds: p50, p95 and p99 from due to success; p95 of publishing, waiting and running"),
        )
    ]
    said = f"Seconds of the run, each point over {write_duration(line.bin_s)}. Shaded: a fault."
    return section(
        "timeline",
        "Timeline",
        tag("p", f"{said} The cursor is the same in all plots."),
        tag("noscript", tag("p", "The plots need a script. The tables have the same numbers.")),
        places,
        page_plots.nodes(view),
        details("The timeline as a table", table("Timeline; rows in which nothing happened are left out", heads, rows)),
    )


def _latency(view: RunView) -> Html:
    drawn = page_plots.latency(view)
    figures = page_sections.stages(view)
    return section("latency", "Latency", figures, drawn) if drawn or figures else Html()


def _tasks(view: RunView) -> Html:
    if view.audit is None or view.audit.is_timelapse:
        return Html()
    fates = sorted({view.lives.words.all[number] for number in view.lives.fates}, key=_rank)
    options = [tag("option", "all fates", value=""), tag("option", "not ok", value="!ok")]
    options += [tag("option", fate, value=fate) for fate in fates]
    return section(
        "tasks",
        "The life of a task",
        tag("p", view.lives.rule),
        tag("noscript", tag("p", "The lives need a script.")),
        tag(
            "div",
            tag(
                "label",
                "Id, or part of it, or a name ",
                tag("input", id="find", type="search", autocomplete="off", spellcheck="false"),
            ),
            tag("label", " Fate ", tag("select", options, id="fate")),
            class_="search",
            role="search",
        ),
        tag("p", "Reading the lives …", id="found", role="status"),
        tag("ol", id="matches", class_="tasks", aria_label="Tasks found"),
        tag("div", id="life"),
    )


def _rank(fate: str) -> tuple[bool, str]:
    return fate == Fate.OK, fate


def _footer(view: RunView) -> Html:
    logs = [
        f"{log.node}: {len(log.lines):,} of {'an unknown number of' if log.total < 0 else f'{log.total:,}'} lines"
        for log in view.logs
        if log.total != len(log.lines)
    ]
    return tag(
        "footer",
        tag(
            "p",
            "Of these logs, the lines around faults and around tasks that are not ok are here, and the last ones: ",
            "; ".join(logs),
            ".",
        )
        if logs
        else None,
        tag("p", f"Made by Celery Harness {__version__} from the run folder alone. The plots are drawn by uPlot."),
        details("Licence of uPlot", tag("pre", asset("uPlot.LICENSE.txt"))),
    )
