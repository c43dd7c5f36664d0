"""The sections of the report, from the view of a run: all but what is drawn."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from urllib.parse import quote

from harness.audit.remains import How, Settled
from harness.measure.durations import write_duration
from harness.printable import printable
from harness.records.expectation import Delivery, Effects, Promise
from harness.records.typed_json import DAMAGED
from harness.records.values import Json
from harness.records.verdict import Fate
from harness.report.html import Html, details, scrolled, table, tag
from harness.report.run_view import RunView

_MOST_CANVASES = 30
_LONGEST_JSON_CHARS = 20_000
_DELIVERIES = {Delivery.AT_LEAST_ONCE: "it runs at least once", Delivery.AT_MOST_ONCE: "it runs at most once"}
_EFFECTS = {
    Effects.EXACTLY_ONCE: "it has each effect exactly once",
    Effects.ONCE_UNLESS_KILLED: "it has each effect once, and once more for each of its runs that was cut short",
    Effects.AT_LEAST_ONCE: "it has each effect at least once",
}
FATE_WORDS = {
    Fate.OK: "ran, was recorded as expected, and had its effects as often as promised",
    Fate.FAILED: "failed, and that is accounted for",
    Fate.PENDING: "was still in the broker or in a worker when the run ended",
    Fate.REFUSED: "was not taken by the broker, and the producer was told",
    Fate.LOST: "was accepted, and it never ended, or an effect of it never came",
    Fate.DUPLICATED: "ran, or had an effect, more often than promised",
    Fate.WRONG: "was recorded with another result or state than expected",
    Fate.UNRECORDED: "ended, and the result table does not say so",
    Fate.RECOVERED: "was not known to be accepted, and it ran",
    Fate.UNKNOWN: "the evidence does not suffice to decide",
}


def section(name: str, head: str, *children: object) -> Html:
    """Return a section with a heading, which a link and a screen reader can find."""
    return tag("section", tag("h2", head, id=f"{name}-head"), children, id=name, aria_labelledby=f"{name}-head")


def task_link(task: str, text: str | None = None) -> Html:
    """Return a link to the life of a task."""
    return tag("a", tag("code", text or task), href=f"#task={quote(printable(task), safe='')}")


def accounting(view: RunView) -> Html:
    """Return the identity: the fates add up to the entries."""
    audited = view.audit
    if audited is None or audited.is_timelapse:
        return Html()
    met = [(fate, count) for fate, count in audited.fates.items() if count]
    terms = " + ".join(f"{count:,} {fate.value}" for fate, count in met)
    total = sum(audited.fates.values())
    identity = f"{audited.entries:,} sent = {terms}" if terms else f"{audited.entries:,} sent"
    holds = "The sum is right: each task has exactly one fate." if total == audited.entries else "The sum is WRONG."
    rows = [
        (
            tag("a", fate.value, href=f"#fate={fate.value}", class_=f"fate {fate.value}"),
            f"{count:,}",
            f"{count / audited.entries:.1%}",
            FATE_WORDS[fate],
        )
        for fate, count in met
    ]
    none = [fate.value for fate, count in audited.fates.items() if not count]
    return section(
        "accounting",
        "Accounting",
        tag("p", identity, class_="identity"),
        tag("p", holds, f" No task was {', '.join(none)}." if none else None),
        tag("p", promised) if (promised := _promised(view)) else None,
        table("Fates", ("fate", "tasks", "share", "what that means of a task"), rows) if rows else None,
    )


def _promised(view: RunView) -> str:
    """Return the promise of each task in a sentence; an empty text if run.json does not say it."""
    try:
        promise = Promise.from_json(view.about["promise"])
    except DAMAGED:
        return ""
    said = [_DELIVERIES[promise.delivery], _EFFECTS[promise.effects]]
    if promise.recorded:
        said.append("how it ended is in the result table")
    if promise.deadline_s is not None:
        said.append(f"it succeeds within {write_duration(promise.deadline_s)} after it is due")
    return f"Promised of each task: {'; '.join(said)}."


def sentence(text: str) -> str:
    """Return a text as a sentence: with a capital, and an end."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."


def faults(view: RunView) -> Html:
    """Return what was broken, and how the run recovered."""
    if not view.faults:
        return Html()
    base_t = view.lives.base_t

    def at(t: float | None) -> str:
        return "-" if t is None else f"{t - base_t:.3f}"

    rows = [
        (
            fault.planned or fault.fault,
            fault.node or "-",
            at(fault.begun_t),
            at(fault.injected_t),
            at(fault.healing_t),
            at(fault.healed_t),
            f"{fault.overlapped:,}",
            _fault_words(fault.text, fault.missing, fault.error),
            [[task_link(task, task[:8]), " "] for task in fault.tasks],
        )
        for fault in view.faults
    ]
    heads = (
        "fault",
        "node",
        "breaking from (s)",
        "seen broken at (s)",
        "healing from (s)",
        "healed at (s)",
        "tasks met",
        "in words",
        "first tasks",
    )
    return section("faults", "Faults", table("What was broken on purpose; seconds of the run", heads, rows))


def _fault_words(text: str, missing: str | None, error: str | None) -> str:
    more = [f"it did not land: {missing}" if missing and missing not in text else "", error or ""]
    return " ".join(filter(None, [sentence(text), *map(sentence, filter(None, more))]))


def workers(view: RunView) -> Html:
    """Return how the tasks were spread over the workers."""
    shares = view.tables.shares
    if not shares:
        return Html()
    total = max(sum(one.starts for one in shares), 1)
    memory = view.audit.memory_mb if view.audit else {}
    rows = [
        (
            one.node,
            f"{one.starts:,}",
            tag(
                "meter",
                f"{one.starts / total:.0%}",
                min=0,
                max=total,
                value=one.starts,
                aria_label=f"share of {one.node}",
            ),
            f"{one.starts / total:.1%}",
            f"{one.failures:,}",
            f"{one.processes:,}",
            f"{memory[one.node]:,.0f}" if one.node in memory else "-",
        )
        for one in shares
    ]
    fairness = view.audit.fairness if view.audit else None
    heads = ("worker", "executions", "", "share", "failed", "processes", "peak MiB")
    said = tag("p", f"Fairness (Jain's index, 1 is even): {fairness:.3f}.") if fairness is not None else None
    return section("workers", "Tasks per worker", said, table("Workers", heads, rows))


def stages(view: RunView) -> Html:
    """Return the figures of each stage of a task's life."""
    found = view.tables.stages
    if not found:
        return Html()
    words = {
        "publish": "sent until confirmed",
        "queue": "due until begun",
        "run": "an execution that ended, without storing its result",
        "e2e": "due until success",
    }
    rows = [
        (
            stage.value,
            words.get(stage.value, ""),
            f"{one.count:,}",
            *map(write_duration, (one.p50_s, one.p95_s, one.p99_s, one.max_s)),
        )
        for stage, one in found.items()
    ]
    return table("Stages of a task's life", ("stage", "what it is", "tasks", "p50", "p95", "p99", "max"), rows)


def canvases(view: RunView) -> Html:
    """Return the largest families of tasks that sent each other; the page draws each as a graph."""
    lives = view.lives
    roots: list[int] = []
    for number, parent in enumerate(lives.parents):
        # A parent is sent before its children, except where clocks differ; then it is drawn as a root of its own.
        roots.append(number if parent < 0 or parent >= number else roots[parent])
    sizes = Counter(roots)
    words = lives.words.all
    bad: defaultdict[int, Counter[str]] = defaultdict(Counter)
    for number, root in enumerate(roots):
        if (fate := words[lives.fates[number]]) != Fate.OK:
            bad[root][fate] += 1
    families = [root for root, size in sizes.items() if size > 1]
    if not families:
        return Html()
    families.sort(key=lambda root: (-sum(bad[root].values()), -sizes[root], root))
    rows = [
        (
            task_link(lives.tasks[root]),
            words[lives.names[root]],
            f"{sizes[root]:,}",
            ", ".join(f"{count:,} {fate}" for fate, count in bad[root].items()) or "all ok",
        )
        for root in families[:_MOST_CANVASES]
    ]
    said = f"{len(families):,} tasks sent others. A link opens the first task, with all of them as a graph."
    if len(families) > _MOST_CANVASES:
        said += f" Here are {_MOST_CANVASES}: those with tasks that are not ok first, then the largest."
    return section(
        "canvases",
        "Canvases",
        tag("p", said),
        table("Tasks that sent others", ("first task", "name", "tasks", "fates"), rows),
    )


def load(view: RunView) -> Html:
    """Return what a load test says beside its tasks."""
    said = view.load
    if said is None:
        return Html()
    counts = said.counts
    facts: list[tuple[str, str]] = [
        ("arrivals", f"{counts.offered:,} offered = {counts.sent:,} sent + {counts.dropped:,} dropped"),
        ("the broker", f"{counts.accepted:,} accepted, {counts.refused:,} refused, {counts.unknown:,} unknown"),
        (
            "loop",
            "open: arrivals follow a plan" if said.is_open else "closed: each arrival follows the end of one before",
        ),
        ("highest backlog", f"{said.backlog_max:,} tasks"),
        ("drained", f"in {write_duration(said.drained_s)}"),
        *([("bottleneck", said.bottleneck)] if said.bottleneck else []),
        *([("search", said.search.text)] if said.search else []),
        *(("invalid", text) for text in said.invalid),
    ]
    met = {True: "met", False: "missed", None: "unknown"}
    goals = [
        (one.text, met[one.holds], "-" if one.figure_s is None else write_duration(one.figure_s))
        for one in said.objectives
    ]
    probes = [
        (
            str(one.workers),
            f"{one.rate:g}/s",
            f"{one.completed_per_s:g}/s",
            write_duration(one.e2e_p99_s),
            one.why_not or "yes",
        )
        for one in said.probes
    ]
    return section(
        "load",
        "Load",
        table("The load", ("what", "figure"), facts),
        table("Objectives", ("objective", "result", "figure"), goals) if goals else None,
        table("Search", ("workers", "rate", "completed", "p99", "sustained"), probes) if probes else None,
    )


def about(view: RunView) -> Html:
    """Return how the run is repeated, and with what it was made."""
    said = view.about
    versions = said.get("versions")
    rows = [(name, str(value)) for name, value in versions.items()] if isinstance(versions, Mapping) else []
    shown: Iterator[tuple[str, Json]] = ((name, said[name]) for name in _SETTINGS if name in said)
    parts = [details(name, _json(name, value)) for name, value in shown]
    if view.left:
        what = "what was left in the broker"
        parts.append(details(what, (_rest(view.left), _json(what, view.left))))
    seed = said.get("seed")
    command = view.command
    return section(
        "about",
        "The run",
        (
            tag("p", "The command that repeats it:"),
            scrolled("pre", "Command", command),
        )
        if command
        else None,
        tag("p", f"Seed: {seed}. The same seed sends the same tasks.") if seed is not None else None,
        table("Versions where the harness ran; the workers may have others", ("what", "version"), rows)
        if rows
        else None,
        parts,
    )


def _rest(left: Mapping[str, Json]) -> Html | None:
    """Return why the wait for rest ended; None without a wait, or if what is told of it cannot be read."""
    try:
        settled = Settled.from_json(left["settled"])
    except DAMAGED:
        return None
    why = _ENDS_OF_WAITS[settled.how]
    if settled.how is How.STUCK and not settled.waiting:
        why = "nothing was in flight, a task had not ended, and nothing could change that any more"
    return tag("p", f"The wait until nothing moves ended after {settled.waited_s:.1f} s: {why}.")


_ENDS_OF_WAITS: Mapping[How, str] = {
    How.REST: "nothing was in flight any more, and every task had ended",
    How.STUCK: "something was in flight, and nothing could change that any more",
    How.TIMEOUT: "no task ended within the time-out",
    How.LIMIT: "tasks still ended when the longest wait was over",
}

_SETTINGS = (
    "stack",
    "promise",
    "options",
    "faults",
    "timelapse",
    "load",
    "nodes",
    "test",
    "scenario",
    "scenarios",
    "count",
)


def _json(name: str, value: Json) -> Html:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if len(text) > _LONGEST_JSON_CHARS:
        text = f"{text[:_LONGEST_JSON_CHARS]}\n… the file in the run folder has all."
    return scrolled("pre", name, text)
