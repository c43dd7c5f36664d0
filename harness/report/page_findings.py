"""The report's section of the findings: what was seen, why, what to change, and what became of the tasks."""

import math
from collections.abc import Mapping
from operator import itemgetter

from harness.records.event import UNWOUND, Kind
from harness.records.verdict import Finding, Reason, Verdict
from harness.report.html import Html, details, scrolled, tag
from harness.report.lives import EFFECT, NO_PROCESS, Happening, Life
from harness.report.page_sections import section, sentence, task_link
from harness.report.run_view import RunView

_MOST_MOMENTS = 8
"""The moments of a task that its finding names. A task that runs again and again has more; its life has all."""
_TOLD: Mapping[str, str] = {
    Kind.INTENDED: "sent",
    Kind.STARTED: "began",
    Kind.REVOKED: "revoked",
    Kind.DISCARDED: "discarded",
    EFFECT: "had its effect",
}
"""The kinds of events that a finding tells of its tasks as they are, and the words for them."""
_REMARK = "remark"
"""What stands at a finding that breaks no promise."""
_NAMED = {*_TOLD, Kind.FINISHED, Kind.EXITED}


def findings(view: RunView) -> Html:
    """Return each finding, the worst first, with its reasons and remedies."""
    audited = view.audit
    if audited is None:
        return Html()
    order = list(Verdict)
    ordered = sorted(audited.findings, key=lambda one: -order.index(one.verdict))
    named = {task for one in ordered for task in one.tasks}
    lives = {task: f"{name} was never sent" for _, task, name in view.lives.unsent if task in named}
    lives |= {task: _brief(view, number) for number, task in enumerate(view.lives.tasks) if task in named}
    articles = [_finding(number, one, lives) for number, one in enumerate(ordered, start=1)]
    if audited.tracebacks:
        articles.append(details("The traceback of the first task that failed", map(_pre, audited.tracebacks)))
    return section("findings", "Findings", articles or tag("p", "There is nothing to say."))


def _brief(view: RunView, number: int) -> str:
    """Return a task's name, and the times of its life that tell what became of it."""
    life = view.lives.life(number)
    moments = [(one.t, _moment(view, one)) for one in life.events if one.kind in _NAMED]
    moments += _faults(view, life)
    moments += _disconnections(view, life)
    said = [f"{text} at {t - view.lives.base_t:.3f} s" for t, text in sorted(moments, key=itemgetter(0))]
    if len(said) > _MOST_MOMENTS:
        said[_MOST_MOMENTS - 1 : -1] = ["..."]
    return f"{life.name} {', '.join(said)}".strip()


def _faults(view: RunView, life: Life) -> list[tuple[float, str]]:
    """Return when each fault began that met the task.

    A fault of the broker also counts for a task that was sent before and that no worker ever took. It is not among
    those that the fault met: these were with a worker.
    """
    kinds = {one.kind for one in life.events}
    is_untaken = not kinds & {Kind.RECEIVED, Kind.STARTED, Kind.FINISHED, Kind.REVOKED, Kind.DISCARDED}
    sent_t = life.events[0].t if Kind.INTENDED in kinds and is_untaken else math.inf
    return [
        (fault.begin_t, f"the fault {fault.fault} began")
        for fault in view.faults
        if fault.begin_t is not None
        and (life.task in fault.tasks or (sent_t < fault.begin_t and (fault.node or "").startswith("broker-")))
    ]


def _disconnections(view: RunView, life: Life) -> list[tuple[float, str]]:
    """Return when a worker lost its connection to the broker between a delivery of the task to it and the task's end.

    Without an end, all that came after the delivery count.
    """
    taken: dict[str, float] = {}
    for one in life.events:
        if one.kind in {Kind.RECEIVED, Kind.STARTED} and one.process != NO_PROCESS:
            taken.setdefault(view.lives.processes[one.process].node, one.t)
    end_t = life.events[-1].t if any(one.kind == Kind.FINISHED for one in life.events) else math.inf
    return [
        (mark.t, f"{node.node} lost its connection to the broker")
        for node in view.tables.nodes
        if node.node in taken
        for mark in node.marks
        if mark.kind == Kind.DISCONNECTED and taken[node.node] <= mark.t <= end_t
    ]


def _moment(view: RunView, one: Happening) -> str:
    if one.kind == Kind.EXITED:
        return f"{view.lives.processes[one.process].node} noticed that its process had ended {one.text}"
    if one.kind != Kind.FINISHED:
        what = _TOLD[one.kind]
    elif one.text.startswith(UNWOUND):
        what = "interrupted"
    else:
        what = f"ended as {one.text.partition(' ')[0].rstrip(':')}"
    if one.kind == Kind.INTENDED or one.process == NO_PROCESS:
        return what
    return f"{what} on {view.lives.processes[one.process].node}"


def _finding(number: int, finding: Finding, lives: Mapping[str, str]) -> Html:
    is_remark = finding.verdict is Verdict.PASS
    more = finding.count - len(finding.tasks)
    tasks = None
    if finding.tasks:
        links = [tag("li", task_link(task), f" {lives.get(task, '')}") for task in finding.tasks]
        rest = tag("li", f"and {more:,} more: the list of tasks below has them") if more > 0 else None
        tasks = tag("ul", links, rest, class_="tasks", aria_label=f"Tasks of finding {number}")
    return tag(
        "article",
        tag(
            "h3",
            tag("span", _REMARK if is_remark else finding.verdict.value, class_=f"badge {finding.verdict.value}"),
            f" {finding.code}",
            f" ({finding.count:,})" if finding.count > 1 else None,
        ),
        tag("p", sentence(finding.text)),
        [_reason(reason, among_others=len(finding.reasons) > 1) for reason in finding.reasons],
        tasks,
        class_=f"finding {finding.verdict.value}",
    )


def _reason(reason: Reason, *, among_others: bool) -> Html:
    """Return a reason with its remedy, and the tasks that have it if others of the finding have another one."""
    source = f" [{reason.source}]" if reason.source else ""
    links = [(" " if number else "", task_link(task)) for number, task in enumerate(reason.tasks)]
    more = reason.count - len(reason.tasks)
    tasks = (tag("dt", "Tasks"), tag("dd", links, f" and {more:,} more" if more > 0 else None))
    return tag(
        "dl",
        (tag("dt", "Reason"), tag("dd", ": ".join(filter(None, (reason.text, reason.seen))))),
        (tag("dt", "Remedy"), tag("dd", tag("code", reason.remedy))) if reason.remedy else None,
        (tag("dt", "Price"), tag("dd", f"{reason.price}{source}")) if reason.price else None,
        tasks if among_others and reason.tasks else None,
        class_="reason",
    )


def _pre(text: str) -> Html:
    return scrolled("pre", "Traceback", text)
