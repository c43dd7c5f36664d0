"""The parts of the report that are drawn without a script: bars, lanes and calendars, as SVG with a table beside it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from harness.audit.beat.tick_records import EntryTicks
from harness.measure.durations import write_duration
from harness.report.html import Html, details, join, scrolled, table, tag
from harness.report.page_data import problems_of
from harness.report.run_view import RunView
from harness.report.view_tables import NodeLife

_WIDTH = 1_000
"""Of the drawings, in their own units."""
_HOURS = 24
_MOST_DAYS = 62
"""The most days of a calendar. A time-lapse of more days has its last ones in the table alone."""
_MOST_ENTRIES = 30
_CALENDAR_S = 36 * 3600
"""The shortest time that is shown as a calendar. A shorter one is a strip."""
_MOST_MARKS = 60


def latency(view: RunView) -> Html:
    """Return the distribution of the time from due to the first success."""
    bars = view.tables.latency
    if not bars:
        return Html()
    counts = {round(begin, 9): (begin, end, count) for begin, end, count in bars}
    first, last = bars[0][0], bars[-1][1]
    ratio = bars[0][1] / bars[0][0]
    edges = []
    edge = first
    while edge < last * 0.999:
        edges.append(edge)
        edge *= ratio
    most = max(count for *_, count in bars)
    width = _WIDTH / len(edges)
    drawn = []
    for number, begin in enumerate(edges):
        found = next((count for key, (_, _, count) in counts.items() if abs(key / begin - 1) < 0.01), 0)  # noqa: PLR2004 - rounding.
        height = 100 * found / most
        label = f"{write_duration(begin)} to {write_duration(begin * ratio)}: {found:,}"
        drawn.append(
            tag(
                "rect",
                tag("title", label),
                x=f"{number * width + 1:.1f}",
                y=f"{100 - height:.1f}",
                width=f"{width - 2:.1f}",
                height=f"{height:.1f}",
                class_="bar",
            )
        )
    rows = [(f"{write_duration(begin)} to {write_duration(end)}", f"{count:,}") for begin, end, count in bars]
    plot = tag(
        "svg",
        drawn,
        viewBox=f"0 0 {_WIDTH} 100",
        preserveAspectRatio="none",
        class_="histogram",
        role="img",
        aria_label="Distribution of the time from due to the first success; the table below has the numbers.",
    )
    ends = tag("p", tag("span", write_duration(first)), tag("span", write_duration(last)), class_="ends")
    return join(
        [
            tag("h3", "From due to the first success"),
            plot,
            ends,
            details("The distribution as a table", table("Latency", ("from due to success", "tasks"), rows)),
        ]
    )


def nodes(view: RunView) -> Html:
    """Return a lane for each node with the times that it was up, and the faults behind."""
    line = view.timeline
    begin_t = line.begin_t if line else min((life.marks[0].t for life in view.tables.nodes), default=0.0)
    end_t = max([line.end_t if line else 0.0, *(life.last_t for life in view.tables.nodes if line is None)])
    if not view.tables.nodes or end_t <= begin_t:
        return Html()
    scale = _WIDTH / (end_t - begin_t)

    def place(t: float) -> float:
        return min(max((t - begin_t) * scale, 0.0), float(_WIDTH))

    def rect(begin: float, end: float, css: str, label: str) -> Html:
        x = place(begin)
        return tag(
            "rect",
            tag("title", label),
            x=f"{x:.1f}",
            width=f"{max(place(end) - x, 1.5):.1f}",
            y=0,
            height=10,
            class_=css,
        )

    windows = [
        rect(fault.begin_t, fault.healed_t or end_t, "fault", fault.planned or fault.fault)
        for fault in view.faults
        if fault.begin_t is not None
    ]
    lanes = []
    for life in view.tables.nodes:
        spans = [rect(begin, end, "up" if told else "up silent", life.node) for begin, end, told in life.spans]
        marks = [
            rect(mark.t, mark.t, f"mark {_mark(mark.kind)}", mark.kind) for mark in life.marks if mark.t >= begin_t
        ]
        drawing = tag(
            "svg", windows, spans, marks, viewBox=f"0 0 {_WIDTH} 10", preserveAspectRatio="none", aria_hidden="true"
        )
        lanes.append(tag("div", tag("span", life.node), drawing, class_="lane"))
    rows = [row for life in view.tables.nodes for row in _node_rows(view, life)]
    heads = ("node", "second of the run", "event", "more")
    return join(
        [
            tag("h3", "Nodes"),
            tag(
                "p",
                "Full bars are times in which a node was up. An open end is the last line of its journal: it was "
                "killed, or was still up. Shaded: a fault.",
            ),
            tag(
                "div",
                lanes,
                class_="lanes",
                role="img",
                aria_label="When each node was up; the table below has the times.",
            ),
            details("The nodes as a table", table("Nodes", heads, rows)),
        ]
    )


def _mark(kind: str) -> str:
    return "bad" if kind in {"disconnected", "exited", "died"} else "good"


def _node_rows(view: RunView, life: NodeLife) -> Iterator[tuple[str, str, str, str]]:
    base_t = view.lives.base_t
    for mark in life.marks[:_MOST_MARKS]:
        yield life.node, f"{mark.t - base_t:.3f}", mark.kind, mark.text
    if len(life.marks) > _MOST_MARKS:
        yield life.node, "", f"and {len(life.marks) - _MOST_MARKS:,} more events", "the journal has all"
    if life.marks[-1].kind != "down":
        end = "it was still up" if life.node in view.alive else "it was killed, or was still up"
        yield life.node, f"{life.last_t - base_t:.3f}", "last line of its journal", end


def ticks(view: RunView) -> Html:
    """Return beat's schedule: the ticks of each entry on a calendar or a strip, and what is wrong with them."""
    audited = view.audit
    if audited is None or not audited.ticks:
        return Html()
    lapse = view.about.get("timelapse")
    zone, named = _zone(lapse.get("tz") if isinstance(lapse, dict) else None)
    rows = [
        (
            entry.entry,
            entry.rule,
            "not known" if entry.expected is None else f"{entry.expected:,}",
            f"{entry.sent:,}",
            _wrong(entry),
            ", ".join(f"{name} {value:.3f} s" for name, value in entry.lateness_s.items()) or "-",
        )
        for entry in audited.ticks
    ]
    heads = ("entry", "rule", "due", "sent", "what is wrong", "late by")
    shown = dict(list(view.tables.ticks.items())[:_MOST_ENTRIES])
    drawings = [tag("figure", tag("figcaption", entry), _drawn(times, zone)) for entry, times in shown.items()]
    left_out = len(view.tables.ticks) - len(shown)
    return tag(
        "section",
        tag("h2", "Beat's ticks", id="ticks-head"),
        table("Entries of the schedule", heads, rows),
        tag("p", f"The times are of {named}, by beat's own clock."),
        drawings,
        tag("p", f"{left_out} more entries are in the table alone.") if left_out else None,
        id="ticks",
        aria_labelledby="ticks-head",
    )


def _wrong(entry: EntryTicks) -> Html:
    said = [
        tag("li", f"{count:,} {name}: {', '.join(first)}{' …' if count > len(first) else ''}")
        for name, count, first in problems_of(entry)
    ]
    return tag("ul", said) if said else join("nothing")


def _zone(name: object) -> tuple[tzinfo, str]:
    if isinstance(name, str):
        try:
            return ZoneInfo(name), name
        except (KeyError, ValueError, OSError):
            pass
    return UTC, "UTC"


def _drawn(times: Sequence[float], zone: tzinfo) -> Html:
    if times[-1] - times[0] < _CALENDAR_S:
        return _strip(times, zone)
    return _calendar(times, zone)


def _strip(times: Sequence[float], zone: tzinfo) -> Html:
    begin, span = times[0], max(times[-1] - times[0], 1e-3)
    # Ticks of the same place are drawn once.
    places = sorted({round((t - begin) / span * (_WIDTH - 4), 0) for t in times})
    drawn = [tag("rect", x=f"{x:.0f}", y=0, width=3, height=20, class_="tick") for x in places]
    first, last = (datetime.fromtimestamp(t, zone) for t in (times[0], times[-1]))
    label = f"{len(times):,} ticks from {first:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S}"
    plot = tag(
        "svg",
        drawn,
        viewBox=f"0 0 {_WIDTH} 20",
        preserveAspectRatio="none",
        class_="strip",
        role="img",
        aria_label=label,
    )
    return join([plot, tag("p", label)])


def _calendar(times: Sequence[float], zone: tzinfo) -> Html:
    """Return a table with a row for each day and a column for each hour."""
    hours = Counter((moment.date(), moment.hour) for moment in (datetime.fromtimestamp(t, zone) for t in times))
    first, last = min(hours)[0], max(hours)[0]
    days = [first + timedelta(days=number) for number in range(min((last - first).days + 1, _MOST_DAYS))]
    most = max(hours.values())
    rows = []
    for day in days:
        cells = []
        for hour in range(_HOURS):
            count = hours.get((day, hour), 0)
            cells.append(tag("td", count or "", class_=f"heat h{-(-4 * count // most)}" if count else None))
        rows.append(tag("tr", tag("th", f"{day:%a %Y-%m-%d}", scope="row"), cells))
    head = tag("tr", tag("th", "day", scope="col"), (tag("th", f"{hour:02}", scope="col") for hour in range(_HOURS)))
    made = tag("table", tag("caption", "Ticks in each hour"), tag("thead", head), tag("tbody", rows), class_="calendar")
    more = (last - first).days + 1 - len(days)
    rest = tag("p", f"{more} more days are not shown.") if more > 0 else None
    return join([scrolled("div", "Calendar of ticks", made), rest])
