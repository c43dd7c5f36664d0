"""Do the tasks survive? Each is held at each moment of its life, the worst is done to it there, and all is audited.

First the tasks run once undisturbed: this shows which tasks there are, and which moments each passes. Then there is one
cell for each task, moment and fault: a stack of its own, one held task, some bystanders, one fault, rest, and an audit.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.audit.audit import Audit
from harness.audit.live_settings import LiveSettings
from harness.audit.run_folder import RunFolder
from harness.errors import HarnessError, UsageError, WaitTimeout
from harness.faults.fault_text import fault_of
from harness.records.expectation import Effects, Promise
from harness.records.finding_codes import Code
from harness.records.moment import Arrival, Moment
from harness.records.survival import Cell, Demand, Outcome, Remedy, Result, Survival
from harness.records.values import Json
from harness.records.verdict import Fate, Finding, Reason, Verdict
from harness.running.remedy_lines import laid_over, settings_of_lines, without_repetition
from harness.scenario import Drive, Scenario
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec

if TYPE_CHECKING:
    from harness.producer import Producer
    from harness.stack.holds import Hold

KILL_WORKER = "kill-worker"
KILL_POOL_PROCESS = "kill-pool-process"
STOP_WORKER = "stop-worker,grace_s=1s"
_BYSTANDERS = 2
"""Tasks that are sent after the fault: they show whether work goes on. More make a cell slower."""
_AT_ONCE = 2
"""Cells that run at the same time. Most of a cell is waiting for processes to start."""
_ROUNDS = 2
"""Times that remedies are looked for. An app's setting does not help a task that has its own value of it, which shows
only when the setting is changed."""
_HELD_S = 30.0
"""Seconds until a task has to be held. It was seen to pass the moment when nothing disturbed it."""
_REST_S = 30.0
"""Seconds without the end of any task after which waiting for rest ends."""
_IN_POOL = (Moment.STARTED, Moment.EFFECT, Moment.RETURNED, Moment.STORED)
_WITH_WORKER = (Moment.RECEIVED, *_IN_POOL, Moment.ACKNOWLEDGED)
MEETS: Mapping[str, Sequence[Moment]] = {
    KILL_WORKER: _WITH_WORKER,
    KILL_POOL_PROCESS: _IN_POOL,
    # A worker whose main process is held cannot shut down.
    STOP_WORKER: _IN_POOL,
}
"""The moments at which each fault can meet a task, in the order of a task's life."""
QUICK: Mapping[str, Sequence[Moment]] = {
    KILL_WORKER: (Moment.RECEIVED, Moment.STARTED, Moment.EFFECT, Moment.RETURNED, Moment.STORED),
    KILL_POOL_PROCESS: (Moment.STARTED, Moment.RETURNED),
    STOP_WORKER: (Moment.STARTED,),
}
"""The eight of them that break most apps."""

Progress = Callable[[int, int], None]
"""Receives the number of cells that are done, and of all."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A scenario, and the stack that it is sent to."""

    name: str
    stack: StackSpec
    scenario: Scenario

    def drive(self, steps: int) -> Drive:
        """Return the first steps of the scenario."""
        return Drive(count=steps, seed=1)


@dataclass(frozen=True, kw_only=True)
class Life:
    """A task's life, as it was seen undisturbed."""

    task: str
    moments: tuple[Moment, ...]
    """The moments that it passed, in the order of a task's life."""
    has_own_process: bool
    """True if a process of the pool runs it, which can die without the worker."""
    is_acknowledged_early: bool = False
    """True if its message is acknowledged when it begins."""

    def cells(self, wanted: Mapping[str, Sequence[Moment]]) -> list[Cell]:
        """Return what can be done to it, by fault and moment."""
        return [
            Cell(task=self.task, moment=moment, fault=fault)
            for fault, moments in wanted.items()
            for moment in moments
            if moment in self.moments
            and (fault == KILL_WORKER or self.has_own_process)
            and not (moment is Moment.ACKNOWLEDGED and self.is_beside_its_run)
        ]

    @property
    def is_beside_its_run(self) -> bool:
        """True if the worker acknowledges while a process of the pool runs the task.

        What is done to the worker at this moment meets the task anywhere, so that the outcome says nothing.
        """
        return self.is_acknowledged_early and self.has_own_process


def trial(session: SharedParts, subject: Subject, root: Path, wanted: Mapping[str, Sequence[Moment]]) -> "Trial":
    """Run one step without a fault, and return what can be tried on each task that ran.

    Args:
        session: has the broker and the images.
        subject: what is sent.
        root: the folder that gets the run folder.
        wanted: the moments at which each fault is to be tried.

    Raises:
        UsageError: a task does not pass its audit even so, or none ran.
        HarnessError: the stack does not start.
    """
    folder = RunFolder.create(root, "undisturbed")
    with _stack(session, subject, folder) as stack:
        stack.holds.listen()
        audit = _play(stack, subject, steps=1, strike=lambda: None)
        arrivals = list(stack.holds.arrivals)
    live = LiveSettings.read(folder.journal)
    if not audit.passed:
        raise UsageError(
            f"without any fault, this does not pass already, so that no fault can show anything: {audit.text()}"
        )
    lives = tuple(replace(life, is_acknowledged_early=_is_early(live, life.task)) for life in lives_of(arrivals))
    if not lives:
        raise UsageError(f"no task of {subject.name} ran, so that nothing can be held.")
    return Trial(subject=subject, lives=lives, wanted=wanted)


def _is_early(live: LiveSettings, task: str) -> bool:
    late = live.option("acks_late", task)
    return late is not None and not late.value


def lives_of(arrivals: Sequence[Arrival]) -> Iterable[Life]:
    """Yield the life of each task that arrived at a moment, without Celery's own tasks."""
    names = dict.fromkeys(one.name for one in arrivals if not one.name.startswith("celery."))
    for name in names:
        own = [one for one in arrivals if one.name == name]
        passed = {one.moment for one in own}
        where = {moment: {one.pid for one in own if one.moment is moment} for moment in passed}
        yield Life(
            task=name,
            moments=tuple(moment for moment in Moment if moment in passed),
            has_own_process=where.get(Moment.STARTED, set()).isdisjoint(where.get(Moment.RECEIVED, set())),
        )


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A subject whose undisturbed run has passed, and what is to be tried on it."""

    subject: Subject
    lives: tuple[Life, ...]
    wanted: Mapping[str, Sequence[Moment]]
    """The moments at which each fault is tried."""

    @property
    def cells(self) -> list[Cell]:
        """All cells."""
        return [cell for life in self.lives for cell in life.cells(self.wanted)]


def survive(
    session: SharedParts,
    trials: Sequence[Trial],
    root: Path,
    *,
    name: str,
    demand: Demand,
    progress: Progress = lambda *_: None,
) -> Survival:
    """Try every cell, and return what became of each. Where the demand is broken, try the remedy as well.

    Args:
        session: has the broker and the images.
        trials: what is sent, and what is tried on it.
        root: the folder that gets a run folder for each cell.
        name: of the whole.
        demand: what is demanded of the tasks.
        progress: see Progress. The number of all grows when remedies are tried.
    """
    survival = Survival(name=name, demand=demand)
    done, total = 0, sum(len(trial.cells) for trial in trials)
    progress(done, total)

    def tried(subject: Subject, cells: Sequence[Cell]) -> list[Result]:
        nonlocal done
        results = []
        for result in try_cells(session, subject, cells, root):
            results.append(result)
            done += 1
            progress(done, total)
        return results

    for trial in trials:
        own = tried(trial.subject, trial.cells)
        survival.results += own
        for life in trial.lives:
            results = [one for one in own if one.cell.task == life.task]
            lines: tuple[str, ...] = ()
            for _ in range(_ROUNDS):
                broken = [one for one in results if demand.verdict(one.outcome) is Verdict.FAIL]
                more = without_repetition([*lines, *(line for one in broken for line in one.remedies)], life.task)
                settings = settings_of_lines(more, life.task)
                if more == lines or not settings:
                    break
                lines, total = more, total + len(results)
                stack = replace(trial.subject.stack, settings=laid_over(trial.subject.stack.settings, settings))
                results = tried(replace(trial.subject, stack=stack), [one.cell for one in results])
            if lines:
                survival.remedies.append(Remedy(task=life.task, lines=lines, results=tuple(results)))
    return survival


def try_cells(session: SharedParts, subject: Subject, cells: Iterable[Cell], root: Path) -> Iterator[Result]:
    """Try some cells, two at a time, and yield the result of each in their order; see `try_cell`."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(lambda cell: try_cell(session, subject, cell, root), cells)


def try_cell(session: SharedParts, subject: Subject, cell: Cell, root: Path) -> Result:
    """Hold the task of one cell, do the worst to it, demand rest, and return what became of all."""
    folder = RunFolder.create(root, f"{cell.task}-{cell.moment.value}-{cell.fault}")

    def result(outcome: Outcome, why: str = "", reasons: Sequence[Reason] = ()) -> Result:
        return Result(
            cell=cell,
            outcome=outcome,
            why=why,
            folder=folder.path.name,
            reasons=tuple(dict.fromkeys(reason.text for reason in reasons)),
            remedies=tuple(dict.fromkeys(reason.remedy for reason in reasons if reason.remedy)),
        )

    try:
        with _stack(session, subject, folder) as stack:
            hold = stack.hold(cell.task, cell.moment)
            audit = _play(stack, subject, steps=1 + _BYSTANDERS, strike=lambda: _strike(stack, hold, cell.fault))
            effects = Counter(one.task for one in stack.holds.arrivals if one.moment is Moment.EFFECT)
    except WaitTimeout as error:
        return result(Outcome.UNKNOWN, f"the task was not held: {error}")
    except HarnessError as error:
        return result(Outcome.UNKNOWN, str(error).partition("\n")[0])
    # A remark, such as of messages that were hoarded, breaks nothing that a remedy would have to mend.
    broken = [finding for finding in audit.findings if finding.verdict is not Verdict.PASS]
    reasons = [reason for finding in broken for reason in finding.reasons]
    return result(*outcome_of(audit, is_effect_doubled=any(count > 1 for count in effects.values())), reasons)


def _strike(stack: Stack, hold: "Hold", fault: str) -> None:
    hold.wait(_HELD_S)
    if fault == KILL_POOL_PROCESS:
        # It is the process that is held, and no other.
        hold.kill()
    else:
        with stack.inject(fault_of(fault)):
            pass


def _stack(session: SharedParts, subject: Subject, folder: RunFolder) -> Stack:
    # That an effect occurs again is an outcome here; whether it breaks a promise, the demand decides.
    promise = replace(subject.scenario.promise, effects=Effects.AT_LEAST_ONCE)
    return Stack(session, replace(subject.stack, workers=1), folder, promise=promise)


def _play(stack: Stack, subject: Subject, *, steps: int, strike: Callable[[], None]) -> Audit:
    """Take the first step, strike, take the other steps, and return the audit."""
    scenario, drive = subject.scenario, subject.drive(steps)
    scenario.prepare(stack, drive)
    first, *others = drive.numbers
    scenario.step(stack.producer, first, drive.seed)
    strike()
    for number in others:
        scenario.step(stack.producer, number, drive.seed)
    scenario.finish(stack, drive)
    return stack.settle(_REST_S, effects=lambda: scenario.effects(stack, drive))


_OUTCOMES = {
    Fate.LOST: Outcome.LOST,
    Fate.PENDING: Outcome.HUNG,
    Fate.UNRECORDED: Outcome.FAILED,
    Fate.WRONG: Outcome.FAILED,
    Fate.FAILED: Outcome.FAILED,
    Fate.DUPLICATED: Outcome.EFFECT_TWICE,
}


def outcome_of(audit: Audit, *, is_effect_doubled: bool) -> tuple[Outcome, str]:
    """Return what became of the tasks of a cell, and the finding that says so."""
    failing = [one for one in audit.findings if one.verdict is Verdict.FAIL]
    # The task was held when the fault came, whatever the node's journal says of it.
    unknown = [one for one in audit.findings if one.verdict is Verdict.UNKNOWN and one.code != Code.FAULT_MET_NOTHING]
    met = [outcome for fate, outcome in _OUTCOMES.items() if audit.fates[fate]]
    if failing:
        # A finding without a fate of its own, such as a step that was never sent, is a loss.
        return max(met, key=list(Outcome).index, default=Outcome.LOST), _words(failing)
    if audit.fates[Fate.PENDING]:
        return Outcome.HUNG, _words(unknown)
    if unknown:
        return Outcome.UNKNOWN, _words(unknown)
    if is_effect_doubled:
        return Outcome.EFFECT_TWICE, ""
    if any(one.code == Code.RAN_AGAIN for one in audit.findings):
        return Outcome.RAN_TWICE, ""
    return Outcome.OK, ""


def _words(findings: Sequence[Finding]) -> str:
    texts = [
        text for one in findings for text in (one.text, *(f"Reason: {why.text}" for why in one.reasons if why.setting))
    ]
    return " ".join(f"{text.rstrip('.')}." for text in texts)


class OneTask(Scenario):
    """One task that is sent again and again with the same arguments. It may return anything."""

    promise = Promise()

    def __init__(self, task: str, args: Sequence[Json], kwargs: Mapping[str, Json]) -> None:
        """Describe the task."""
        self.name = task
        self._args, self._kwargs = args, kwargs

    def step(self, producer: "Producer", number: int, seed: int) -> None:
        """Send it once."""
        del number, seed
        producer.send(self.name, self._args, self._kwargs)
