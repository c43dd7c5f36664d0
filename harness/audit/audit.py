"""The audit: gives every task exactly one fate, and the run a verdict. A pure function of the run folder.

The witnesses are loaded into tables and reconciled by set operations (`audit.sql`), so a million tasks take
seconds and bounded memory.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from harness.audit import deleted_rows, worker_findings
from harness.audit.beat import tick_rules
from harness.audit.beat.tick_records import EntryTicks, Ticks, Window
from harness.audit.evidence_database import FIRST_TASKS, Database, open_database
from harness.audit.explain import Explainer
from harness.audit.reasons import Reasons
from harness.audit.run_folder import RunFolder
from harness.audit.witnesses import Unwitnessed, Witnesses
from harness.errors import HarnessError, RunFolderError
from harness.printable import printable
from harness.records import values
from harness.records.expectation import Promise
from harness.records.finding_codes import Code
from harness.records.values import Json
from harness.records.verdict import Fate, Finding, Verdict

_SHOWN = 3
"""The number of ids that a line of text shows. More would hide the words of the finding; audit.json has ten."""


class AuditError(HarnessError):
    """An audit that contradicts itself: the fates do not add up to the entries. This is a defect of the harness."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Audit:
    """The result of an audit. audit.json holds what `to_json` returns."""

    name: str
    entries: int
    fates: Mapping[Fate, int]
    """The number of tasks per fate, for every fate, also if it is 0; the sum is `entries`."""
    findings: tuple[Finding, ...]
    tracebacks: tuple[str, ...] = ()
    """The traceback of the first task that failed unexpectedly, if one was recorded."""
    e2e_ms: Mapping[str, float]
    """Milliseconds from due to first success: p50, p95, p99, max; empty if no task succeeded. Without journals of the
    workers, the `date_done` of the row stands for the first success."""
    workers: Mapping[str, int]
    """Executions begun, per worker."""
    memory_mb: Mapping[str, float]
    """Peak resident memory per worker, in MiB: the sum of its processes' peaks, as far as they reported them. Pages
    that processes share count for each of them."""
    witnesses: Mapping[str, Json]
    """Figures of each witness: what was read of it."""
    ticks: tuple[EntryTicks, ...] = ()
    """The ticks of each entry of beat's schedule; empty if no beat ran."""

    @property
    def fairness(self) -> float | None:
        """Jain's index of the executions begun per worker, from 1/n to 1; None if `jain` gives none."""
        return jain(self.workers.values())

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all findings."""
        return Verdict.worst([finding.verdict for finding in self.findings])

    @property
    def is_timelapse(self) -> bool:
        """True if only beat ran, so that there are ticks and no tasks."""
        return "timelapse" in self.witnesses

    @property
    def passed(self) -> bool:
        """True if everything is accounted for and every promise was kept."""
        return self.verdict is Verdict.PASS

    def to_json(self) -> dict[str, Json]:
        """Return the audit as audit.json holds it. The same folder gives the same value, wherever it lies."""
        return {
            "format": 1,
            "name": self.name,
            "verdict": self.verdict.value,
            "entries": self.entries,
            "fates": {fate.value: self.fates[fate] for fate in Fate},
            "findings": [finding.to_json() for finding in self.findings],
            "tracebacks": list(self.tracebacks),
            "e2e_ms": dict(self.e2e_ms),
            "workers": dict(self.workers),
            "fairness": None if self.fairness is None else round(self.fairness, 4),
            "memory_mb": dict(self.memory_mb),
            "witnesses": dict(self.witnesses),
            "ticks": [entry.to_json() for entry in self.ticks],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Json]) -> "Audit":
        """Read the result of `to_json`. Raises ValueError, TypeError or KeyError on anything else."""
        return cls(
            name=str(value["name"]),
            entries=int(value["entries"]),
            fates={fate: int(value["fates"][fate.value]) for fate in Fate},
            findings=tuple(map(Finding.from_json, value["findings"])),
            tracebacks=tuple(str(text) for text in value.get("tracebacks", ())),
            e2e_ms=dict(value["e2e_ms"]),
            workers=dict(value["workers"]),
            memory_mb=dict(value["memory_mb"]),
            witnesses=dict(value["witnesses"]),
            ticks=tuple(map(EntryTicks.from_json, value["ticks"])),
        )

    def text(self) -> str:
        """Return a few plain lines: the verdict, the traceback of a failed task, and each finding."""
        met = ", ".join(f"{count} {fate.value}" for fate, count in self.fates.items() if count)
        lines = [f"{self.verdict.value}: {self.entries} sent: {met or 'nothing'}"]
        lines += [f"  {line}" for traceback in self.tracebacks for line in traceback.splitlines()]
        for finding in self.findings:
            lines.append(f"  {finding.verdict.value:7} {finding.code}: {finding.text.removesuffix('.')}{_ids(finding)}")
            lines += [f"          {line}" for line in finding.reason_lines]
        return printable("\n".join(lines))

    def __repr__(self) -> str:
        """Return `text()`, so that a failed assertion and an interactive session show it."""
        return self.text()


def _ids(finding: Finding) -> str:
    """Return the first ids of a finding in brackets, without those that its text names."""
    shown = [task for task in finding.tasks[:_SHOWN] if task not in finding.text]
    more = finding.count - _SHOWN
    return f" ({', '.join(shown)}{f' and {more} more' if more > 0 else ''})" if shown else ""


def jain(counts: Iterable[int]) -> float | None:
    """Return Jain's fairness index of some counts; None for fewer than two, or if all are zero."""
    known = list(counts)
    if len(known) < 2 or not any(known):  # noqa: PLR2004 - fairness needs at least two.
        return None
    return sum(known) ** 2 / (len(known) * sum(count**2 for count in known))


def audit(folder: RunFolder, look: Callable[[Database], None] = lambda _: None) -> Audit:
    """Audit a run. Reads the folder, and writes nothing.

    A witness that cannot be read makes the verdict unknown; it does not end the audit.

    Args:
        folder: the run folder.
        look: receives the database with the evidence and the fates at the end, to read more of it. A time-lapse has
            none, because no task ran.

    Raises:
        RunFolderError: run.json is missing or not usable, or the database cannot process the evidence.
        AuditError: the fates do not add up to the entries.
    """
    settings = folder.read("run.json")
    try:
        promise = Promise.from_json(settings["promise"])
        nodes = [str(node) for node in settings["nodes"]]
        name = str(settings["name"])
        unwitnessed = frozenset(map(Unwitnessed, settings.get("unwitnessed", ())))
        row_kinds = [str(kind) for kind in settings.get("stack", {}).get("effects", ())]
        lapse = settings.get("timelapse")
        window = Window(begin_t=float(lapse["from_t"]), end_t=float(lapse["to_t"])) if lapse else None
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise RunFolderError(
            f"{folder.path / 'run.json'} is not what a run writes: {error!r} is missing or wrong."
        ) from error
    if lapse and (ticked := tick_rules.account(folder.journal, window)):
        return _of_timelapse(name, ticked, lapse)
    with open_database(folder.path) as database:
        witnesses = Witnesses(database, folder, unwitnessed)
        witnesses.load(nodes, row_kinds)
        ticked = tick_rules.account(folder.journal, without_beat=witnesses.without_beat)
        audited = _judge(database, witnesses, promise, name, ticked)
        look(database)
        return audited


def _of_timelapse(name: str, ticked: Ticks, lapse: Mapping[str, Json]) -> Audit:
    """Return the audit of a time-lapse. No worker ran, so there are no tasks and no fates."""
    return Audit(
        name=name,
        entries=0,
        fates=dict.fromkeys(Fate, 0),
        findings=ticked.findings,
        tracebacks=(),
        e2e_ms={},
        workers={},
        memory_mb={},
        witnesses={"timelapse": dict(lapse)},
        ticks=ticked.entries,
    )


def _judge(database: Database, witnesses: Witnesses, promise: Promise, name: str, ticked: Ticks | None) -> Audit:
    database.run("wrong")
    database.insert("wrong", _really_wrong(database.stream("mismatches")))
    database.run(
        "fates",
        incomplete=witnesses.incomplete,
        results_readable=witnesses.results_readable,
        effects_readable=witnesses.effects_readable,
        delivery=promise.delivery.value,
        effects=promise.effects.value,
        recorded=promise.recorded,
        executions=witnesses.executions,
    )
    met = {Fate(fate): int(count) for fate, count in database.all("counts")}
    fates = {fate: met.get(fate, 0) for fate in Fate}
    ((entries,),) = database.all("entry_count")
    if sum(fates.values()) != entries:
        raise AuditError(f"{entries} entries have {sum(fates.values())} fates: please report this run folder.")
    database.run("chords", results_readable=witnesses.results_readable)
    explainer = Explainer(database, witnesses)
    findings = [
        *witnesses.findings,
        *_check_findings(witnesses.folder),
        *_fate_findings(database, fates, explainer),
        *_other_findings(database, promise, explainer, journal_incomplete=witnesses.journal_incomplete),
        *(deleted_rows.findings(database) if promise.recorded else ()),
        *_promise_findings(explainer, incomplete=witnesses.incomplete),
        *_fairness_findings(witnesses.workers, promise),
        *worker_findings.of_hoarding(witnesses.hoarded()),
        *worker_findings.of_growth(witnesses.growth_mb, promise),
        *(ticked.findings if ticked else ()),
    ]
    if not entries - fates[Fate.REFUSED]:
        text = (
            "no task was sent, so nothing was shown."
            if not entries
            else "every task was refused, so nothing was shown."
        )
        findings.append(Finding(code=Code.NOTHING_SENT, verdict=Verdict.UNKNOWN, count=entries, text=text))
    reasons = Reasons(database, witnesses.folder.journal, witnesses.remains)
    ((count, *quantiles),) = database.all("e2e")
    names = ("p50", "p95", "p99", "max")
    return Audit(
        name=name,
        entries=entries,
        fates=fates,
        findings=tuple(map(reasons.explained, findings)),
        tracebacks=tuple(explainer.unexpected_failures()),
        e2e_ms={key: round(value, 3) for key, value in zip(names, quantiles, strict=True)} if count else {},
        workers=witnesses.workers,
        memory_mb=witnesses.memory_mb,
        witnesses=witnesses.about,
        ticks=ticked.entries if ticked else (),
    )


def _really_wrong(pairs: Iterable[tuple[Json, ...]]) -> Iterator[str]:
    """Yield the tasks whose result differs from the expected one as a value, not only as text."""
    for task, *pair in pairs:
        try:
            is_same = _is_same(*pair)
        except RecursionError:
            # Python wrote the expected value, so a text that Python cannot read for its depth is not that value.
            is_same = False
        if not is_same:
            yield task


def _is_same(expected: str | None, expected_digest: str | None, value: str | None, digest: str | None) -> bool:
    """Return whether two results are equal; a long one is given as a digest."""
    if expected is not None and value is not None:
        return values.same(values.loads(expected), values.loads(value))
    ours = expected_digest if expected is None else values.digest(expected)
    theirs = digest if value is None else values.digest(value)
    return ours is not None and ours == theirs


_FATE_FINDINGS = (
    (Fate.LOST, Verdict.FAIL, "accepted, and the task or its effect never came to be"),
    (Fate.DUPLICATED, Verdict.FAIL, "ran or had an effect more often than promised"),
    (Fate.WRONG, Verdict.FAIL, "recorded with another result or state than expected"),
    (Fate.UNRECORDED, Verdict.FAIL, "came to an end in a worker without a final row in celery_taskmeta"),
    (Fate.UNKNOWN, Verdict.UNKNOWN, "the witnesses do not suffice to say what became of them"),
    (Fate.PENDING, Verdict.UNKNOWN, "still in the broker or in a worker when the run ended"),
    (Fate.REFUSED, Verdict.PASS, "refused by the broker, and the producer was told"),
    (Fate.RECOVERED, Verdict.PASS, "not known to be accepted, and they ran"),
)


def _fate_findings(database: Database, fates: Mapping[Fate, int], explainer: Explainer) -> Iterator[Finding]:
    for fate, verdict, words in _FATE_FINDINGS:
        if fates[fate]:
            count, tasks = database.sample("of_fate", fate=fate.value)
            more = explainer.waiting() if fate is Fate.PENDING else _also(explainer.fate(fate, tasks))
            text = f"{explainer.names(tasks, count)}: {words}{more}"
            yield Finding(code=Code(fate), verdict=verdict, count=count, text=text, tasks=tasks)


def _also(text: str) -> str:
    return f": {text}" if text else ""


_OTHER_FINDINGS = (
    ("failed_unexpectedly", Verdict.FAIL, "ended in a failure that nobody expected"),
    ("failed_on_one_worker", Verdict.FAIL, "several workers got it, and not all of them succeeded"),
    ("refused_but_ran", Verdict.FAIL, "reported as refused to the producer, and ran"),
    ("unexpected_executions", Verdict.FAIL, "executed, and no producer ever intended them"),
    ("unexpected_rows", Verdict.FAIL, "in celery_taskmeta, and no producer ever intended them"),
    ("early", Verdict.FAIL, "began before they were due"),
    ("out_of_order", Verdict.FAIL, "began before a task that they follow had succeeded"),
    ("unexpected_effects", Verdict.FAIL, "effects that no task was expected to have"),
    ("unexpected_messages", Verdict.FAIL, "left in the broker, and no producer ever intended them"),
    ("groups_half_sent", Verdict.FAIL, "members of saved groups, and nobody ever sent them"),
    ("chords_half_sent", Verdict.FAIL, "bodies of chords that were sent in part"),
    ("chords_hopeless", Verdict.FAIL, "bodies of chords that nobody will ever send"),
    ("chords_waiting", Verdict.UNKNOWN, "bodies of chords that still waited for their members"),
    ("left_after_end", Verdict.UNKNOWN, "came to an end, and a message is left that may run them once more"),
    ("ran_before_commit", Verdict.PASS, "sent in a transaction of a database, and began before that was committed"),
    ("undecoded", Verdict.PASS, "results that are not JSON, and were not decoded"),
    ("failed_run", Verdict.PASS, "succeeded, and another run of it failed"),
    ("ran_again", Verdict.PASS, "ran more than once, which the promise allows"),
    ("had_again", Verdict.PASS, "had an effect more than once, which the promise allows"),
    ("unfinished_rows", Verdict.PASS, "rows in celery_taskmeta that say neither success nor failure"),
)
_OF_UNSENT = frozenset({"groups_half_sent", "chords_half_sent", "chords_hopeless"})
_OF_LINES = frozenset({*_OF_UNSENT, "out_of_order"})
_OF_CHORDS = frozenset({"chords_half_sent", "chords_hopeless", "chords_waiting"})
_OF_WORKERS = frozenset({"failed_on_one_worker", "failed_run", "left_after_end", "ran_again"})


def _other_findings(
    database: Database, promise: Promise, explainer: Explainer, *, journal_incomplete: bool
) -> Iterator[Finding]:
    found = [(code, verdict, text, database.sample(code)) for code, verdict, text in _OTHER_FINDINGS]
    if promise.deadline_s is not None:
        text = f"succeeded later than {promise.deadline_s:g} s after they were due"
        found.append(("late", Verdict.FAIL, text, database.sample("late", deadline_s=promise.deadline_s)))
    for code, verdict, words, (count, tasks) in found:
        if count:
            name = Code(code.replace("_", "-"))
            if journal_incomplete and (code.startswith("unexpected_") or code in _OF_LINES):
                # The line that says that it was sent, or that another task ended, may be lost.
                verdict = Verdict.UNKNOWN  # noqa: PLW2901 - changed for this finding alone.
            text = f"{explainer.names(tasks, count)}: {words}{_more(code, tasks, explainer)}"
            yield Finding(code=name, verdict=verdict, count=count, text=text, tasks=tasks)


def _more(code: str, tasks: tuple[str, ...], explainer: Explainer) -> str:
    """Return further details of the tasks of a finding, by its code."""
    if code == "failed_unexpectedly":
        return f" ({explainer.reasons()}){explainer.failed_without_effects()}"
    if code == "out_of_order":
        return _also(explainer.order(tasks))
    if code == "ran_before_commit":
        return _also(explainer.hasty(tasks))
    if code in _OF_CHORDS:
        return _also(explainer.chords(tasks))
    return _also(explainer.workers(tasks)) if code in _OF_WORKERS else ""


def _promise_findings(explainer: Explainer, *, incomplete: bool) -> Iterator[Finding]:
    """Yield the findings on promised tasks, endless sending, queue settings and dead letters."""
    count, tasks, text = explainer.never_sent()
    if count:
        verdict = Verdict.UNKNOWN if incomplete else Verdict.FAIL
        yield Finding(code=Code.NEVER_SENT, verdict=verdict, count=count, text=text, tasks=tasks[:FIRST_TASKS])
    if restless := explainer.sending():
        yield Finding(code=Code.RESTLESS, verdict=Verdict.UNKNOWN, count=1, text=restless)
    if differing := explainer.differing_queues():
        text = f"declared by the app otherwise than the broker has them: {'; '.join(differing)}"
        yield Finding(code=Code.QUEUES_DIFFER, verdict=Verdict.PASS, count=len(differing), text=text)
    yield from worker_findings.of_remains(explainer.witnesses.remains)
    if dead := explainer.witnesses.remains.dead:
        tasks = tuple(sorted(letter.task for letter in dead if letter.task is not None))[:FIRST_TASKS]
        text = explainer.dead_letters()
        yield Finding(code=Code.DEAD_LETTERS, verdict=Verdict.PASS, count=len(dead), text=text, tasks=tasks)


def _fairness_findings(workers: Mapping[str, int], promise: Promise) -> Iterator[Finding]:
    if promise.fairness is None:
        return
    shares = ", ".join(f"{node} {count}" for node, count in workers.items()) or "none"
    index = jain(workers.values())
    if index is None:
        text = f"a fairness of {promise.fairness:g} is demanded, and there were not two workers with work: {shares}."
        yield Finding(code=Code.FAIRNESS_UNKNOWN, verdict=Verdict.UNKNOWN, count=len(workers), text=text)
    elif index < promise.fairness:
        text = f"the workers' shares have a fairness of {index:.3f}, and {promise.fairness:g} is demanded: {shares}."
        yield Finding(code=Code.UNFAIR, verdict=Verdict.FAIL, count=len(workers), text=text)


def _check_findings(folder: RunFolder) -> Iterator[Finding]:
    """Yield the findings of the scenario's own checks, which ran before the stack was taken down; see `run`."""
    if not (folder.path / "checks.json").exists():
        return
    try:
        yield from map(Finding.from_json, folder.read("checks.json")["findings"])
    except (RunFolderError, KeyError, TypeError, ValueError) as error:
        text = f"checks.json is not what a run writes: {type(error).__name__}."
        yield Finding(code=Code.CHECKS_UNREADABLE, verdict=Verdict.UNKNOWN, count=1, text=text)
