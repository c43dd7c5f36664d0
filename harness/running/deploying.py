"""The common part of all rehearsals: a stack under load, whose workers come and go, and what became of all tasks."""

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.audit.audit import Audit, audit
from harness.audit.in_hand import NodeJournal, in_hand
from harness.audit.run_folder import RunFolder
from harness.containers.node import Node
from harness.errors import EngineError, UsageError, WaitTimeout
from harness.measure.rollout import begun_by, longest, longest_gap_s, overhead_s, untaken_s, waits
from harness.records.event import Event
from harness.records.finding_codes import Code
from harness.records.journal import read
from harness.records.rehearsal import Rehearsed, Replaced, Share
from harness.records.values import Json
from harness.records.verdict import Fate, Finding, Verdict
from harness.running.run import checked
from harness.running.steady_load import SteadyLoad
from harness.running.survive import Subject
from harness.scenario import Drive
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack
from harness.wait import wait_until

GRACE_S = 10.0
"""The grace period of `docker stop`. Kubernetes has 30 s."""
MOST_STEPS = 2000
_FIRST_S = 120.0
"""Seconds within which the first tasks have to end, before anything is changed, and the last ones afterwards."""
_GONE_S = 10.0
"""Seconds within which a killed container is gone."""
_RECENT_BYTES = 4_000_000
"""The bytes at the end of each journal file that are read to learn what a worker has in hand."""
_HEARD = re.compile(r"\b(Warm|Soft|Cold) shutdown\b")
"""Celery's words when it gets the signal."""
_FIRST_PROCESS = "import pathlib; print(pathlib.Path('/proc/1/cmdline').read_text().replace(chr(0), ' ').strip())"
EXHAUSTED = "load-exhausted"
"""The code of the finding that a rehearsal went on without load."""
STALLED = "load-stalled"
"""The code of the finding that too few tasks ended, or none began, although the workers were up."""


class HaltError(Exception):
    """The deploy cannot go on, because the stack has no broker any more; its findings say why."""


@dataclass(frozen=True, kw_only=True)
class _Phase:
    """A time in which nothing was changed, and who worked in it."""

    workers: tuple[str, ...]
    begin_t: float
    end_t: float


@dataclass
class Deploying:
    """A deploy that goes on: its stack under load, and the workers that come and go."""

    stack: Stack
    load: SteadyLoad
    begin_t: float = field(default_factory=time.time)
    replaced: list[Replaced] = field(default_factory=list)
    """The workers that were asked to stop."""
    phases: list[_Phase] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    """What was seen that no audit can see."""
    broker_down_s: float = 0.0
    """The seconds during which the broker was down."""
    if_dead: Verdict = Verdict.UNKNOWN
    """The verdict if no task is taken, or none begins, after a change."""
    is_exhausted: bool = False
    """True if the load was over before the change was."""
    is_halted: bool = False
    """True if the change was not made, and there is no broker any more."""
    alive: list[Node] = field(init=False)
    """The workers that take tasks, the oldest first."""
    _opened: dict[str, float] = field(init=False)
    _closed: dict[str, float] = field(default_factory=dict)
    _asked: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Begin with the workers of the stack."""
        self.alive = list(self.stack.workers)
        self._opened = {worker.name: self.begin_t for worker in self.alive}

    def start(self, count: int = 1) -> None:
        """Start some more workers at once, and return when they are ready."""
        for worker in self.stack.add_workers(count):
            self.alive.append(worker)
            self._opened[worker.name] = time.time()

    def end(self, workers: Sequence[Node], grace_s: float) -> None:
        """Ask some workers to stop at the same time, and return when all are down. See `stop`."""
        self.alive = [worker for worker in self.alive if worker not in workers]
        for asked_t, one in _stop_all(self.stack, workers, grace_s):
            self.replaced.append(one)
            self._asked[one.node] = asked_t
            # If they are lost, whoever waits for their end would send nothing any more.
            self.load.given_up += len(one.cut)
            # Who has not heard that it is to end takes tasks until then.
            self._closed[one.node] = asked_t if one.heard else asked_t + one.took_s

    def stay(self, rounds: int) -> None:
        """Change nothing until each worker could have had as many tasks as it runs at once, so many times.

        If that takes too long, that is a finding.
        """
        begin_t, wanted = time.time(), rounds * self.load.busy
        try:
            self.load.wait_for(wanted, _FIRST_S)
        except WaitTimeout:
            if not self.note_if_dead(begin_t):
                text = (
                    f"fewer than {wanted} tasks ended within {_FIRST_S:g} s in which nothing was changed, so that the "
                    "stack was not seen under its load: shorten the tasks"
                )
                self.findings.append(Finding(code=STALLED, verdict=Verdict.UNKNOWN, count=wanted, text=text))
        self.note_phase(begin_t, time.time())

    def note_if_dead(self, since_t: float) -> bool:
        """Return whether the broker refused all tasks, or none began, since a time; if so, that is a finding."""
        # While all workers are busy, nothing is sent, and so nothing is taken.
        if self.load.last_taken_t < since_t <= self.load.last_refused_t:
            seen = "the broker refused every task"
        elif self.load.last_begun_t < since_t:
            seen = "no task began"
        else:
            return False
        text = f"{seen} in the {time.time() - since_t:.0f} s after the change"
        self.findings.append(Finding(code=STALLED, verdict=self.if_dead, count=1, text=text))
        return True

    def make(self, change: Callable[["Deploying"], None]) -> tuple[float, float]:
        """Make the change, go on until tasks end after it, and return when it began and was over."""
        begin_t = time.time()
        self.note_phase(self.begin_t, begin_t)
        try:
            change(self)
        except HaltError:
            self.is_halted = True
            return begin_t, time.time()
        end_t = time.time()
        self.is_exhausted = self.load.is_exhausted
        try:
            self.load.wait_for(self.load.busy, _FIRST_S)
        except WaitTimeout:
            # If tasks begin and take long, the audit tells why. What was found before needs no second finding.
            if all(one.code != STALLED for one in self.findings):
                self.note_if_dead(end_t)
        return begin_t, end_t

    def note_phase(self, begin_t: float, end_t: float) -> None:
        """Note that nothing was changed between two times."""
        names = tuple(worker.name for worker in self.alive)
        self.phases.append(_Phase(workers=names, begin_t=begin_t, end_t=end_t))

    def spans(self, end_t: float) -> Iterator[tuple[float, float]]:
        """Yield from when until when each worker took tasks; one that was never asked did so until the end."""
        for node, t in self._opened.items():
            yield t, self._closed.get(node, end_t)

    def overhead_s(self, events: Sequence[Event]) -> float:
        """Return the longest time from a worker's last task to its own end, of those that were not killed."""
        ended = ((one, self._asked[one.node]) for one in self.replaced if not one.was_killed)
        return max((overhead_s(events, one.node, t, t + one.took_s) for one, t in ended), default=0.0)


def under_load(
    session: SharedParts,
    subject: Subject,
    root: Path,
    *,
    title: str,
    run_name: str,
    about: Mapping[str, Json],
    change: Callable[[Deploying], None],
    most_steps: int = MOST_STEPS,
) -> Rehearsed:
    """Change a stack while tasks are sent, and return what became of all.

    Args:
        session: has the broker and the images.
        subject: what is sent, and the stack with its workers.
        root: the folder that gets the run folder.
        title: what is done, for a person.
        run_name: the name of the run folder.
        about: what is done, for run.json.
        change: does it.
        most_steps: the most steps that are taken.

    Raises:
        UsageError: no task ends even before anything is changed.
        HarnessError: the stack, or a worker of it, does not start.
    """
    scenario, drive = subject.scenario, subject.drive(most_steps)
    folder = RunFolder.create(root, run_name)
    said = {"scenario": scenario.name, "seed": drive.seed, **about}
    with Stack(session, subject.stack, folder, promise=scenario.promise, about=said) as stack:
        scenario.prepare(stack, drive)
        with SteadyLoad(stack, scenario, drive, workers=subject.stack.workers) as load:
            deploying = Deploying(stack, load)
            warm_up(load, subject.name)
            asked_t, ready_t = deploying.make(change)
        if deploying.is_exhausted:
            deploying.findings.append(_exhausted(load.taken))
        if deploying.is_halted:
            audited = _audited_as_it_is(folder, deploying.findings)
        else:
            audited = settled(stack, subject, drive, load.taken, deploying.findings)
    events = sorted(read(folder.journal), key=lambda event: event.t)
    waited = list(waits(events))
    length_s, name = longest(events) or (None, "")
    return replace(
        rehearsed(title, folder, audited, deploying.replaced),
        untaken_s=round(untaken_s(deploying.spans(ready_t), asked_t, ready_t), 1),
        waited_s=max((s for t, s in waited if asked_t <= t <= ready_t), default=None),
        waited_before_s=max((s for t, s in waited if t + s < asked_t), default=None),
        gap_s=longest_gap_s(events, asked_t, ready_t),
        gap_before_s=longest_gap_s(events, deploying.begin_t, asked_t),
        longest_s=length_s,
        longest_task=name,
        overhead_s=deploying.overhead_s(events),
        broker_down_s=round(deploying.broker_down_s, 1),
        shares=tuple(_share(events, phase) for phase in deploying.phases),
    )


def _share(events: Sequence[Event], phase: _Phase) -> Share:
    begun = begun_by(events, phase.begin_t, phase.end_t)
    return Share(
        took_s=round(phase.end_t - phase.begin_t, 2), begun={name: begun.get(name, 0) for name in phase.workers}
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


def _exhausted(taken: int) -> Finding:
    text = f"all {taken} steps were taken before the deploy was over, so that it had no load at its end"
    return Finding(code=EXHAUSTED, verdict=Verdict.UNKNOWN, count=taken, text=text)


def settled(stack: Stack, subject: Subject, drive: Drive, taken: int, findings: Iterable[Finding]) -> Audit:
    """Demand rest and return the audit, with the scenario's own checks of the steps that were taken, and findings."""
    scenario = subject.scenario
    driven = Drive(count=taken, seed=drive.seed, options=drive.options)
    scenario.finish(stack, driven)

    def checks() -> Iterator[Finding]:
        yield from findings
        yield from checked(scenario, stack, driven)

    return stack.settle(effects=lambda: scenario.effects(stack, driven), checks=checks)


def _audited_as_it_is(folder: RunFolder, findings: Iterable[Finding]) -> Audit:
    """Return the audit, with findings, of a stack that cannot come to rest because it has no broker."""
    folder.write("checks.json", {"findings": [finding.to_json() for finding in findings]})
    audited = audit(folder)
    folder.write("audit.json", audited.to_json())
    return audited


def _stop_all(stack: Stack, workers: Sequence[Node], grace_s: float) -> list[tuple[float, Replaced]]:
    """Stop some workers at the same time. See `stop`."""
    given_up = threading.Event()
    if len(workers) == 1:
        # In this thread, where an interrupt ends the wait.
        return [stop(stack, workers[0], grace_s, given_up)]
    with ThreadPoolExecutor(len(workers)) as pool:
        try:
            return list(pool.map(lambda worker: stop(stack, worker, grace_s, given_up), workers))
        except BaseException:
            # The pool waits for its threads, and each of them otherwise for the whole grace period.
            given_up.set()
            raise


def stop(stack: Stack, node: Node, grace_s: float, given_up: threading.Event) -> tuple[float, Replaced]:
    """Ask a worker to stop, and kill it after its grace period. It is not started again.

    Args:
        stack: has the journal.
        node: the worker.
        grace_s: its grace period in seconds.
        given_up: ends the wait when it is set.

    Returns:
        When it was asked, Unix time in seconds, and how it ended.

    Raises:
        EngineError: the engine does not answer, or the worker has ended before.
        CancelledError: `given_up` was set before the worker had ended.
    """

    def is_down() -> bool:
        if given_up.is_set():
            raise CancelledError
        return not node.is_up()

    first_process = node.container.execute("python", "-c", _FIRST_PROCESS).strip()
    journal = NodeJournal(stack.folder.journal, node.name, recent_bytes=_RECENT_BYTES)
    events = journal.recent()
    had = in_hand(events)
    asked_t, begin_s = time.time(), time.monotonic()
    node.kill("SIGTERM")
    was_killed = False
    try:
        wait_until(is_down, what=f"{node.name} has ended", timeout_s=grace_s)
    except WaitTimeout:
        was_killed = _kill(node)
    took_s = time.monotonic() - begin_s
    events += journal.read()
    return asked_t, Replaced(
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


def rehearsed(title: str, folder: RunFolder, audited: Audit, replaced: Sequence[Replaced] = ()) -> Rehearsed:
    """Return a run by its audited. A task that was cut breaks the deploy, whatever became of it afterwards."""
    broken = [one for one in audited.findings if one.verdict is not Verdict.PASS]
    again = [one.count for one in audited.findings if one.code == Code.RAN_AGAIN]
    had_again = [one.count for one in audited.findings if one.code == Code.HAD_AGAIN]
    verdict = Verdict.worst([audited.verdict, *(Verdict.FAIL for one in replaced if one.cut or one.is_deaf)])
    return Rehearsed(
        title=title,
        folder=folder.path.name,
        verdict=verdict,
        sent=audited.entries,
        lost=audited.fates[Fate.LOST],
        ran_again=sum(again),
        doubled=audited.fates[Fate.DUPLICATED] + sum(had_again),
        failed=sum(audited.fates[fate] for fate in _FAILED) - _expected_failures(audited),
        pending=audited.fates[Fate.PENDING],
        refused=audited.fates[Fate.REFUSED],
        findings=tuple(_words(one) for one in broken),
        replaced=tuple(replaced),
    )


def _expected_failures(audited: Audit) -> int:
    """Return the number of tasks that failed as their sender expected."""
    unexpected = sum(one.count for one in audited.findings if one.code == Code.FAILED_UNEXPECTEDLY)
    return audited.fates[Fate.FAILED] - min(unexpected, audited.fates[Fate.FAILED])


def _words(finding: Finding) -> str:
    reasons = "".join(f" Reason: {why.text}." for why in finding.reasons if why.setting)
    remedies = "".join(f" Remedy: {why.remedy}." for why in finding.reasons if why.remedy)
    return f"{finding.code}: {finding.text.rstrip('.')}.{reasons}{remedies}"
