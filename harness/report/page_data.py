"""The data that the page's script reads: the lives, the logs and the timeline, as JSON."""

import base64
import gzip
import json

from harness.audit.beat.tick_records import EntryTicks
from harness.printable import printable
from harness.records.values import Json
from harness.report.run_view import RunView

_DIGITS = 4
"""Decimal places of a second: tenths of milliseconds."""
_LEVEL = 6
"""Of the compression. A higher one takes twice as long for a few percent."""


def packed(value: Json) -> str:
    """Return a value as compressed JSON in base64, which no element of a page can end before its time."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    # A lone surrogate is not UTF-8; `printable` has escaped those of texts.
    return base64.b64encode(gzip.compress(text.encode("utf-8", "backslashreplace"), _LEVEL, mtime=0)).decode()


def plain(value: Json) -> str:
    """Return a value as JSON that can stand in a script element: no `<` and no `&` is in it."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("&", "\\u0026").replace(">", "\\u003e")


def timeline_of(view: RunView) -> Json:
    """Return the points of the plots, and the windows of the faults, in seconds of the run; None without tasks."""
    line = view.timeline
    if line is None:
        return None
    base_t = view.lives.base_t
    rate = 1 / line.bin_s
    return {
        "t": [round(t - base_t, _DIGITS) for t in line.times],
        "rates": [
            [round(count * rate, 2) for count in counts]
            for counts in (line.sent, line.started, line.finished, line.failed)
        ],
        "backlog": list(line.backlog),
        "stages": {
            stage.value: [[None if one is None else round(one[at], _DIGITS) for one in values] for at in range(3)]
            for stage, values in line.stages.items()
            if any(values)
        },
        "faults": faults_of(view),
    }


def faults_of(view: RunView) -> list[Json]:
    """Return the faults that were injected: begin and end in seconds of the run, a name, and the node."""
    base_t = view.lives.base_t
    return [
        [
            round(fault.begin_t - base_t, _DIGITS),
            None if fault.healed_t is None else round(fault.healed_t - base_t, _DIGITS),
            printable(f"{fault.planned or fault.fault or 'fault'}{f' on {fault.node}' if fault.node else ''}"),
            printable(fault.node or ""),
        ]
        for fault in view.faults
        if fault.begin_t is not None
    ]


def lives_of(view: RunView) -> Json:
    """Return the lives and the logs, in columns."""
    lives = view.lives
    base_t = lives.base_t
    return {
        "base": base_t,
        "words": list(map(printable, lives.words.all)),
        "processes": [[printable(one.node), one.pid, printable(one.role)] for one in lives.processes],
        "tasks": list(map(printable, lives.tasks)),
        "names": lives.names.tolist(),
        "fates": lives.fates.tolist(),
        "statuses": lives.statuses.tolist(),
        "results": lives.results.tolist(),
        "notes": lives.notes.tolist(),
        "parents": lives.parents.tolist(),
        "begins": lives.begins.tolist(),
        "times": lives.times.tolist(),
        "kinds": lives.kinds.tolist(),
        "owners": lives.owners.tolist(),
        "texts": lives.texts.tolist(),
        "follows": [list(pair) for pair in lives.follows],
        "unsent": [[number, printable(task), printable(name)] for number, task, name in lives.unsent],
        "tracebacks": {str(number): printable(text) for number, text in lives.tracebacks.items()},
        "faults": faults_of(view),
        "logs": [
            [
                printable(log.node),
                [[None if line.t is None else round(line.t - base_t, 3), printable(line.text)] for line in log.lines],
            ]
            for log in view.logs
        ],
    }


def problems_of(entry: EntryTicks) -> list[tuple[str, int, tuple[str, ...]]]:
    """Return what is wrong with the ticks of an entry: a word, the count, and the first times."""
    every = (
        (name, getattr(entry, name))
        for name in ("missing", "doubled", "late", "early", "delayed", "doubtful", "unproven")
    )
    return [(name, times.count, times.first) for name, times in every if times.count]
