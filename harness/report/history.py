"""The history: one HTML file of all run folders, with verdicts, fates and durations over time."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from harness import __version__
from harness.measure.durations import write_duration
from harness.records.verdict import Verdict
from harness.report.document import asset, document
from harness.report.html import Html, join, table, tag
from harness.report.page_sections import section
from harness.report.run_list import ListedRun, words

_MOST_RUNS = 2_000
"""The most runs of the table: a browser draws so many rows in a second. `harness runs` lists all."""
_MOST_DRAWN = 100
"""The most runs of one name that are drawn. A drawing is some hundred pixels wide."""
_MOST_NAMES = 30
_QUANTILES = ("p50", "p95", "p99")
_WIDTH, _HEIGHT, _STRIP = 1_000, 100, 10
"""Of the drawings, in their own units: the lines, and below them the strip of the verdicts."""
_BROKEN = "broken"


def page(runs: Sequence[ListedRun], root: str, reports: Mapping[str, str]) -> str:
    """Return the history of runs.

    Args:
        runs: the runs, newest first.
        root: the folder in which they lie.
        reports: the addresses of their reports, by their folders.
    """
    shown = runs[:_MOST_RUNS]
    counts = Counter(_word(one) for one in runs)
    met = ", ".join(f"{counts[word]:,} {word}" for word in (*(one.value for one in Verdict), _BROKEN) if counts[word])
    head = f"{len(runs):,} {'run' if len(runs) == 1 else 'runs'}" + (f": {met}" if met else "")
    return document(
        "History of runs",
        tag("a", "To the table", href="#runs", class_="skip"),
        tag("header", tag("h1", head), tag("p", tag("code", root))),
        tag("main", _over_time(shown), _table(shown, len(runs), reports), id="main"),
        tag("footer", tag("p", f"Made by Celery Harness {__version__} from the run folders alone.")),
        style=asset("report.css"),
    )


def _word(run: ListedRun) -> str:
    return _BROKEN if run.verdict is None else run.verdict.value


def _css(run: ListedRun) -> str:
    return Verdict.UNKNOWN.value if run.verdict is None else run.verdict.value


def _over_time(runs: Sequence[ListedRun]) -> Html:
    """Return a drawing for each name of which there are several runs, the most recent name first."""
    by_name: dict[str, list[ListedRun]] = {}
    for one in runs:
        by_name.setdefault(one.name, []).append(one)
    several = {name: some[:_MOST_DRAWN][::-1] for name, some in by_name.items() if len(some) > 1}
    if not several:
        return Html()
    drawn = [_drawing(name, some) for name, some in list(several.items())[:_MOST_NAMES]]
    rule = f"For each name, the newest {_MOST_DRAWN} runs, the oldest on the left."
    if len(several) > _MOST_NAMES:
        rule += f" Of {len(several):,} names, the {_MOST_NAMES} that ran last."
    legend = [tag("span", name, class_=f"key {name}") for name in _QUANTILES]
    said = tag("p", f"{rule} From due to success, on a scale of powers of ten: ", [[one, " "] for one in legend])
    return section("time", "Over time", said, drawn)


def _drawing(name: str, runs: Sequence[ListedRun]) -> Html:
    """Return the durations of the runs of one name as lines, and their verdicts as a strip below."""
    width = _WIDTH / len(runs)
    known = [value for one in runs for value in _values(one).values()]
    low, high = (min(known), max(known)) if known else (1.0, 1.0)
    lines = [
        tag("polyline", points=" ".join(points), class_=f"line {quantile}", vector_effect="non-scaling-stroke")
        for quantile in _QUANTILES
        if (points := list(_points(runs, quantile, low, high)))
    ]
    strip = [
        tag(
            "rect",
            tag("title", f"{_begun(one)} {_word(one)}"),
            x=f"{number * width:.1f}",
            width=f"{max(width - 1, 1):.1f}",
            y=_HEIGHT + 4,
            height=_STRIP,
            class_=f"verdict-mark {_css(one)}",
        )
        for number, one in enumerate(runs)
    ]
    counts = Counter(_word(one) for one in runs)
    label = f"{name}: {', '.join(f'{count:,} {word}' for word, count in counts.items())}; the table has the numbers."
    drawing = tag(
        "svg",
        lines,
        strip,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT + _STRIP + 6}",
        preserveAspectRatio="none",
        class_="histogram",
        role="img",
        aria_label=label,
    )
    scale = f"{write_duration(low / 1000)} to {write_duration(high / 1000)}" if known else "no durations are known"
    ends = tag("p", tag("span", _begun(runs[0])), tag("span", scale), tag("span", _begun(runs[-1])), class_="ends")
    return join([tag("h3", tag("code", name)), drawing, ends])


def _values(run: ListedRun) -> dict[str, float]:
    """Return the quantiles in milliseconds that can be drawn on a scale of powers of ten."""
    return {name: value for name in _QUANTILES if (value := run.e2e_ms.get(name, 0.0)) > 0 and math.isfinite(value)}


def _points(runs: Sequence[ListedRun], quantile: str, low: float, high: float) -> Iterator[str]:
    width = _WIDTH / len(runs)
    # Of one value alone, the line is in the middle.
    span = math.log(high) - math.log(low)
    for number, one in enumerate(runs):
        value = _values(one).get(quantile)
        if value is not None:
            part = (math.log(value) - math.log(low)) / span if span else 0.5
            yield f"{(number + 0.5) * width:.1f},{_HEIGHT - part * (_HEIGHT - 4) - 2:.1f}"


def _begun(run: ListedRun) -> str:
    return "" if run.begun is None else run.begun[:19].replace("T", " ")


def _table(runs: Sequence[ListedRun], total: int, reports: Mapping[str, str]) -> Html:
    heads = ("begun (UTC)", "run", "verdict", "sent", "not ok", *_QUANTILES, "took", "report")
    rows = [
        (
            _begun(one) or "-",
            tag("code", one.name),
            tag("span", _word(one), class_=f"badge {_css(one)}"),
            "" if one.verdict is None else f"{one.entries:,}",
            words(one),
            *(_duration(one.e2e_ms.get(name)) for name in _QUANTILES),
            _duration(None if one.duration_s is None else one.duration_s * 1000),
            _link(one, reports),
        )
        for one in runs
    ]
    said = f"The newest {len(runs):,} of {total:,} runs." if total > len(runs) else ""
    made = table("Runs, newest first; durations from due to success", heads, rows) if rows else "There is no run."
    return section("runs", "Runs", tag("p", said) if said else None, made)


def _duration(value_ms: float | None) -> str:
    # A damaged file may hold any number.
    return write_duration(value_ms / 1000) if value_ms is not None and math.isfinite(value_ms) else ""


def _link(run: ListedRun, reports: Mapping[str, str]) -> object:
    address = reports.get(run.folder)
    return tag("a", "report", href=address, aria_label=f"report of {run.name} {_begun(run)}") if address else "-"
