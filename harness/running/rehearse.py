"""A deploy, rehearsed: workers are replaced one by one under load, as an orchestrator does it, and all is audited."""

import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.audit.audit import Audit
from harness.audit.in_hand import NodeJournal, in_hand
from harness.audit.run_folder import RunFolder
from harness.containers.node import Node
from harness.errors import EngineError, UsageError, WaitTimeout
from harness.measure.rollout import longest, overhead_s, untaken_s, waits
from harness.records.finding_codes import Code
from harness.records.journal import read
from harness.records.rehearsal import Rehearsal, Rehearsed, Replaced
from harness.records.verdict import Fate, Finding, Verdict
from harness.running.run import checked
from harness.running.steady_load import SteadyLoad
from harness.running.survive import Subject
from harness.scenario import Drive
from harness.stack.shared_parts import Say, SharedParts
from harness.stack.stack import Stack
from harness.wait import wait_until

GRACE_S = 10.0
"""The grace period of `docker stop`. Kubernetes has 30 s."""
WORKERS = 2
MOST_STEPS = 2000
_FIRST_S = 120.0
"""Seconds within which the first tasks have to end, before anything is replaced, and the last ones afterwards."""
_GONE_S = 10.0
"""Seconds within which a killed container is gone."""
_RECENT_BYTES = 4_000_000
"""The bytes at the end of each journal file that are read to learn what a worker has in hand."""
_ROUNDS = 3
"""Grace periods that are tried. A task that was cut each time shows its length only when it has time to end."""
_MARGIN_S = 0.5
"""Seconds that are added to the longest execution: the worker has to hear the signal, and to acknowledge the task."""
_HEARD = re.compile(r"\b(Warm|Soft|Cold) shutdown\b")
"""Celery's words when it gets the signal."""
_FIRST_PROCESS = "import pathlib; print(pathlib.Path('/proc/1/cmdline').read_text().replace(chr(0), ' ').strip())"
EXHAUSTED = "load-exhausted"
"""The code of the finding that a rehearsal went on without load."""


@dataclass(frozen=True, kw_only=True)
class Deploy:
    """The way in which workers are replaced."""

    grace_s: float = GRACE_S
    surge: bool = False
    """True if the new worker is there before the old one is asked to stop."""


@dataclass
class _Times:
    """From when until when each worker took tasks."""

    begin_t: float
    opened: dict[str, float] = field(default_factory=dict)
    closed: dict[str, float] = field(default_factory=dict)

    def spans(self, end_t: float) -> Iterator[tuple[float, float]]:
        """Yield them; a worker that was never asked took tasks until the end."""
        for node, t in self.opened.items():
            yield t, self.closed.get(node, end_t)


def rolling(
    session: SharedParts, subject: Subject, root: Path, deploy: Deploy, *, most_steps: int = MOST_STEPS
) -> Rehearsed:
    """Replace every worker once, one after another, while tasks are sent, and return what became of all.

    Args:
        session: has the broker and the images.
        subject: what is sent, and the stack with its workers.
        root: the folder that gets the run folder.
        deploy: how the workers are replaced.
        most_steps: the most steps that are taken.

    Raises:
        UsageError: no task ends even before a worker is replaced.
        HarnessError: the stack, or a worker of it, does not start.
    """
    scenario, drive = subject.scenario, subject.drive(most_steps)
    folder = RunFolder.create(root, f"rolling-{subject.name}-grace-{deploy.grace_s:g}s")
    title = f"{subject.stack.workers} workers replaced one by one, grace {deploy.grace_s:g} s"
    about = {"scenario": scenario.name, "seed": drive.seed, "rolling": {"grace_s": deploy.grace_s}}
    replaced: list[Replaced] = []
    with Stack(session, subject.stack, folder, promise=scenario.promise, about=about) as stack:
        scenario.prepare(stack, drive)
        times = _Times(begin_t=time.time())
        times.opened = {worker.name: times.begin_t for worker in stack.workers}
        spans: list[tuple[str, float, float]] = []
        with SteadyLoad(stack, scenario, drive, workers=subject.stack.workers) as load:
            warm_up(load, subject.name)
            asked_t = time.time()
            for old in list(stack.workers):
                if deploy.surge:
                    times.opened[stack.add_worker().name] = time.time()
                begin_t = time.time()
                one = stop(stack, old, deploy.grace_s)
                replaced.append(one)
                spans.append((old.name, begin_t, begin_t + one.took_s))
                # Who has not heard that it is to end takes tasks until then.
                times.closed[old.name] = begin_t if one.heard else begin_t + one.took_s
                if not deploy.surge:
                    times.opened[stack.add_worker().name] = time.time()
            ready_t = time.time()
            is_exhausted = load.is_exhausted
            go_on(load)
        audit = settled(stack, subject, drive, load.taken, is_exhausted=is_exhausted)
    events = sorted(read(folder.journal), key=lambda event: event.t)
    waited = list(waits(events))
    length_s, name = longest(events) or (None, "")
    return replace(
        rehearsed(title, folder, audit, replaced),
        untaken_s=round(untaken_s(times.spans(ready_t), asked_t, ready_t), 1),
        waited_s=max((s for t, s in waited if asked_t <= t <= ready_t), default=None),
        waited_before_s=max((s for t, s in waited if t + s < asked_t), default=None),
        longest_s=length_s,
        longest_task=name,
        overhead_s=max(
            (overhead_s(events, *span) for span, one in zip(spans, replaced, strict=True) if not one.was_killed),
            default=0.0,
        ),
    )


def warm_up(load: SteadyLoad, name: str) -> None:
    """Wait until every process of every worker has had work. Raises UsageError if that takes too long."""
    try:
        load.wait_for(1, _FIRST_S)
        load.wait_for(load.busy, _FIRST_S)
    except WaitTimeout:
        raise UsageError(
            f"too few tasks of {name} have ended within {_FIRST_S:g} s, with all workers up: shorten the tasks, so "
            "that a rehearsal can show something."
        ) from None


def go_on(load: SteadyLoad) -> None:
    """Wait until tasks end with the new workers. If that takes too long, the audit tells why."""
    try:
        load.wait_for(load.busy, _FIRST_S)
    except WaitTimeout:
        return


def settled(stack: Stack, subject: Subject, drive: Drive, taken: int, *, is_exhausted: bool) -> Audit:
    """Demand rest and return the audit, with the scenario's own checks of the steps that were taken."""
    scenario = subject.scenario
    driven = Drive(count=taken, seed=drive.seed, options=drive.options)
    scenario.finish(stack, driven)

    def checks() -> Iterator[Finding]:
        if is_exhausted:
            text = f"all {taken} steps were taken before the deploy was over, so that it had no load at its end"
            yield Finding(code=EXHAUSTED, verdict=Verdict.UNKNOWN, count=taken, text=text)
        yield from checked(scenario, stack, driven)

    return stack.settle(effects=lambda: scenario.effects(stack, driven), checks=checks)


def stop(stack: Stack, node: Node, grace_s: float) -> Replaced:
    """Ask a worker to stop, and kill it after its grace period. It is not started again.

    Raises:
        EngineError: the engine does not answer, or the worker has ended before.
    """
    first_process = node.container.execute("python", "-c", _FIRST_PROCESS).strip()
    journal = NodeJournal(stack.folder.journal, node.name, recent_bytes=_RECENT_BYTES)
    events = journal.recent()
    had = in_hand(events)
    begin_s = time.monotonic()
    node.kill("SIGTERM")
    was_killed = False
    try:
        wait_until(lambda: not node.is_up(), what=f"{node.name} has ended", timeout_s=grace_s)
    except WaitTimeout:
        was_killed = _kill(node)
    took_s = time.monotonic() - begin_s
    events += journal.read()
    return Replaced(
        node=node.name,
        first_process=first_process,
        heard=_HEARD.search(node.container.logs()) is not None,
        was_killed=was_killed,
        exit_code=node.container.state().exit_code,
        took_s=round(took_s, 2),
        begun=len(had.begun),
        cut=tuple(sorted(in_hand(sorted(events, key=lambda event: event.t)).begun)),
    )


def _kill(node: Node) -> bool:
    """Kill a worker, and return whether it ended by that."""
    try:
        node.kill()
    except EngineError:
        # In this moment it has ended by itself.
        if node.is_up():
            raise
        return False
    wait_until(lambda: not node.is_up(), what=f"{node.name} is gone", timeout_s=_GONE_S)
    return True


_FAILED = (Fate.FAILED, Fate.WRONG, Fate.UNRECORDED)


def rehearsed(title: str, folder: RunFolder, audit: Audit, replaced: Sequence[Replaced] = ()) -> Rehearsed:
    """Return a run by its audit. A task that was cut breaks the deploy, whatever became of it afterwards."""
    broken = [one for one in audit.findings if one.verdict is not Verdict.PASS]
    again = [one.count for one in audit.findings if one.code == Code.RAN_AGAIN]
    had_again = [one.count for one in audit.findings if one.code == Code.HAD_AGAIN]
    verdict = Verdict.worst([audit.verdict, *(Verdict.FAIL for one in replaced if one.cut or one.is_deaf)])
    return Rehearsed(
        title=title,
        folder=folder.path.name,
        verdict=verdict,
        sent=audit.entries,
        lost=audit.fates[Fate.LOST],
        ran_again=sum(again),
        doubled=audit.fates[Fate.DUPLICATED] + sum(had_again),
        failed=sum(audit.fates[fate] for fate in _FAILED) - _expected_failures(audit),
        pending=audit.fates[Fate.PENDING],
        findings=tuple(_words(one) for one in broken),
        replaced=tuple(replaced),
    )


def _expected_failures(audit: Audit) -> int:
    """Return the number of tasks that failed as their sender expected."""
    unexpected = sum(one.count for one in audit.findings if one.code == Code.FAILED_UNEXPECTEDLY)
    return audit.fates[Fate.FAILED] - min(unexpected, audit.fates[Fate.FAILED])


def _words(finding: Finding) -> str:
    reasons = "".join(f" Reason: {why.text}." for why in finding.reasons if why.setting)
    remedies = "".join(f" Remedy: {why.remedy}." for why in finding.reasons if why.remedy)
    return f"{finding.code}: {finding.text.rstrip('.')}.{reasons}{remedies}"


def needed_grace_s(run: Rehearsed) -> int | None:
    """Return the grace period in whole seconds in which every task of a run could have ended.

    It is that of the longest execution that was seen, as if it had begun when its worker was asked to stop. None if no
    grace period helps, because the signal does not reach Celery, or if no task ended.
    """
    if run.longest_s is None or any(one.is_deaf for one in run.replaced):
        return None
    return math.ceil(run.longest_s + _MARGIN_S)


def with_proof(
    first: Rehearsed, rehearsal: Rehearsal, run_with: Callable[[float], Rehearsed], say: Say = lambda _: None
) -> Rehearsal:
    """Find the shortest grace period, prove it by a run, and return the rehearsal with it.

    Args:
        first: the run with the grace period that was asked for.
        rehearsal: gets the shortest one and its proof.
        run_with: makes a run with a grace period in seconds.
        say: gets a line for each run.
    """
    needed_s = needed_grace_s(first)
    for _ in range(_ROUNDS):
        if needed_s is None:
            break
        say(f"once more, with a grace period of {needed_s} s")
        proof = run_with(needed_s)
        rehearsal.shortest_grace_s, rehearsal.proof = needed_s, proof
        rehearsal.is_proven = not proof.cut
        if rehearsal.is_proven:
            break
        # What was cut before may have ended now, and be longer than all that was seen.
        needed_s = max(needed_grace_s(proof) or 0, 2 * needed_s)
    return rehearsal
