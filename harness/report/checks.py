"""The checks of a run, as a CI system lists them: a few of the same names in every run, each with its findings.

Every finding of an audit belongs to exactly one check, so that the worst check has the verdict of the audit.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

from harness.audit.audit import Audit
from harness.measure.load_account import LoadAccount
from harness.records.check import Check
from harness.records.finding_codes import Code
from harness.records.survival import Result, Survival
from harness.records.verdict import Finding, Verdict


class Question(StrEnum):
    """The name of a check that stands for a group of findings."""

    ACCOUNTED = "every task is accounted for"
    ONCE = "nothing runs or has its effect more often than promised"
    AS_EXPECTED = "every task ends as expected"
    RECORDED = "every end is recorded"
    UNASKED = "nothing happens that nobody asked for"
    IN_TIME = "tasks run in order and in time"
    TICKS = "every tick of the schedule comes once and in time"
    WORKERS = "the workers work as promised"
    WITNESSES = "the witnesses are whole"
    LOAD = "the load is as intended"
    FAULTS = "the faults land and meet tasks"
    OWN = "the scenario's own checks hold"


QUESTIONS: Mapping[Question, tuple[Code, ...]] = {
    Question.ACCOUNTED: (
        Code.LOST,
        Code.PENDING,
        Code.UNKNOWN,
        Code.REFUSED,
        Code.RECOVERED,
        Code.REFUSED_BUT_RAN,
        Code.RESTLESS,
        Code.NOTHING_SENT,
        Code.NEVER_SENT,
        Code.GROUPS_HALF_SENT,
        Code.CHORDS_HALF_SENT,
        Code.CHORDS_HOPELESS,
        Code.CHORDS_WAITING,
        Code.DEAD_LETTERS,
    ),
    Question.ONCE: (Code.DUPLICATED, Code.RAN_AGAIN, Code.HAD_AGAIN, Code.LEFT_AFTER_END),
    Question.AS_EXPECTED: (Code.WRONG, Code.FAILED_UNEXPECTEDLY, Code.FAILED_ON_ONE_WORKER, Code.FAILED_RUN),
    Question.RECORDED: (
        Code.UNRECORDED,
        Code.ROW_EXPIRED,
        Code.ROW_DELETED,
        Code.UNDECODED,
        Code.UNFINISHED_ROWS,
    ),
    Question.UNASKED: (
        Code.UNEXPECTED_EXECUTIONS,
        Code.UNEXPECTED_ROWS,
        Code.UNEXPECTED_EFFECTS,
        Code.UNEXPECTED_MESSAGES,
    ),
    Question.IN_TIME: (Code.EARLY, Code.LATE, Code.RAN_BEFORE_COMMIT, Code.OUT_OF_ORDER),
    Question.TICKS: (
        Code.TICK_MISSING,
        Code.TICK_DOUBLED,
        Code.TICK_LATE,
        Code.TICK_EARLY,
        Code.TICK_UNPREDICTABLE,
        Code.TICKS_DELAYED,
        Code.TICKS_DOUBTFUL,
        Code.TICKS_STALLED,
        Code.TICKS_SKIPPED,
        Code.TICKS_UNSCHEDULED,
        Code.TICKS_UNSENT,
        Code.TICKS_UNWATCHED,
        Code.TICKS_UNWITNESSED,
        Code.NOTHING_TICKED,
        Code.BEAT_DIED,
        Code.ENTRY_SHADOWED,
        Code.ENTRIES_REMOVED,
    ),
    Question.WORKERS: (
        Code.DEAF,
        Code.HOARDED,
        Code.UNFAIR,
        Code.FAIRNESS_UNKNOWN,
        Code.MEMORY_GROWS,
        Code.MEMORY_GROWTH_UNKNOWN,
        Code.QUEUES_DIFFER,
        Code.SETTINGS_DIFFER,
    ),
    Question.WITNESSES: (
        Code.JOURNAL_INCOMPLETE,
        Code.JOURNAL_SILENT,
        Code.JOURNAL_GROWING,
        Code.JOURNAL_UNREADABLE,
        Code.JOURNAL_TORN,
        Code.RESULTS_UNREADABLE,
        Code.RESULTS_NOT_COPIED,
        Code.EFFECTS_UNREADABLE,
        Code.EFFECTS_TORN,
        Code.EFFECTS_DAMAGED,
        Code.EFFECTS_ABSENT,
        Code.EFFECTS_UNSEEN,
        Code.BROKER_UNREAD,
        Code.MESSAGES_ANONYMOUS,
        Code.UNWITNESSED_EXECUTIONS,
        Code.UNWITNESSED_EFFECTS,
        Code.UNWITNESSED_BROKER,
    ),
    Question.LOAD: (Code.OFFER_DIFFERS, Code.SENT_DIFFERS, Code.GENERATOR_BROKEN),
    Question.FAULTS: (Code.FAULT, Code.FAULT_NOT_LANDED, Code.FAULT_MET_NOTHING),
    # A scenario's own codes are plain text, and belong here too.
    Question.OWN: (Code.CHECK_CRASHED, Code.CHECKS_UNREADABLE),
}
_OF_CODE = {code.value: question for question, codes in QUESTIONS.items() for code in codes}
_ONLY_IF_ASKED = frozenset({Question.TICKS, Question.LOAD, Question.FAULTS})
"""What most runs have nothing to say of. Without a finding it is no check."""


def of_audit(audit: Audit) -> Iterator[Check]:
    """Yield the checks of a run: each entry of beat's schedule, and then each question that the run answers."""
    of_entries: dict[str, list[Finding]] = {entry.entry: [] for entry in audit.ticks}
    of_questions: dict[Question, list[Finding]] = {}
    for finding in audit.findings:
        question = _OF_CODE.get(str(finding.code), Question.OWN)
        entry = _entry_of(finding, list(of_entries)) if question is Question.TICKS else None
        if entry is not None:
            of_entries[entry].append(finding)
        else:
            of_questions.setdefault(question, []).append(finding)
    for entry, findings in of_entries.items():
        yield _check(entry, findings, group="ticks")
    for question in Question:
        is_asked = not audit.is_timelapse and question not in _ONLY_IF_ASKED
        if is_asked or question in of_questions or (question is Question.TICKS and audit.is_timelapse):
            yield _check(question.value, of_questions.get(question, []))


def _entry_of(finding: Finding, entries: Sequence[str]) -> str | None:
    """Return the entry of beat's schedule that a finding is about; None if it is about several or none."""
    return max((entry for entry in entries if finding.text.startswith(f"{entry}: ")), key=len, default=None)


def _check(name: str, findings: Sequence[Finding], *, group: str = "") -> Check:
    verdict = Verdict.worst([finding.verdict for finding in findings])
    order = list(Verdict)
    worst_first = sorted(findings, key=lambda finding: -order.index(finding.verdict))
    broken = [str(finding.code) for finding in worst_first if finding.verdict is not Verdict.PASS]
    lines = [line for finding in worst_first for line in _lines(finding)]
    return Check(name=name, group=group, verdict=verdict, kind=", ".join(dict.fromkeys(broken)), text="\n".join(lines))


def _lines(finding: Finding) -> list[str]:
    return [f"{finding.code}: {finding.sentence}", *(f"  {line}" for line in finding.reason_lines)]


def of_load(said: LoadAccount, audit: Audit) -> Iterator[Check]:
    """Yield the checks of a load test: those of its tasks, its objectives, the load, and the verdict on all."""
    of_load_itself = Question.LOAD.value
    for check in of_audit(audit):
        if check.name != of_load_itself:
            yield check
    findings = [one for one in audit.findings if _OF_CODE.get(str(one.code)) is Question.LOAD]
    broken = _check(of_load_itself, findings)
    yield Check(
        name=of_load_itself,
        verdict=Verdict.worst([broken.verdict, *(Verdict.UNKNOWN for _ in said.invalid)]),
        kind=", ".join(filter(None, [broken.kind, "invalid" if said.invalid else ""])),
        text="\n".join(filter(None, [broken.text, *said.invalid])),
    )
    for one in said.objectives:
        seen = "no task passed it" if one.figure_s is None else f"{one.figure_s * 1000:.4g} ms"
        holds = None if said.invalid else one.holds
        verdict = {True: Verdict.PASS, False: Verdict.FAIL, None: Verdict.UNKNOWN}[holds]
        # Under another load than was asked for, nothing is known of the system under test.
        text = f"{one.text}: {seen}" + ("; the load was not as intended" if said.invalid else "")
        kind = "" if verdict is Verdict.PASS else "objective"
        yield Check(name=one.text, group="objectives", verdict=verdict, kind=kind, text=text)
    codes = {one.exit_code: one for one in Verdict}
    verdict = codes.get(said.exit_code, Verdict.UNKNOWN)
    yield Check(name="the load test passes", verdict=verdict, kind=verdict.value, text=said.reason)


def of_survival(survival: Survival) -> Iterator[Check]:
    """Yield the checks of `harness survive`, one for each cell; with a baseline, what is worse than there fails."""
    worse = None if survival.baseline is None else survival.baseline.worse_cells
    remedies = {remedy.task: remedy for remedy in survival.remedies}
    for one in survival.results:
        cell, verdict = one.cell, survival.demand.verdict(one.outcome)
        is_known = verdict is Verdict.FAIL and worse is not None and cell not in worse
        lines = [f"{one.outcome.value}: {one.why}" if one.why else one.outcome.value, *_whys(one)]
        if verdict is not Verdict.PASS and cell.task in remedies:
            now = next((after for after in remedies[cell.task].results if after.cell == cell), None)
            if now is not None:
                lines.append(f"with {'; '.join(remedies[cell.task].lines)}: {now.outcome.value}")
        yield Check(
            name=f"{cell.fault} at {cell.moment.value}",
            group=cell.task,
            # A cell that passes the demand can still be worse than it was.
            verdict=Verdict.FAIL if worse and cell in worse and verdict is Verdict.PASS else verdict,
            kind="" if verdict is Verdict.PASS else one.outcome.value,
            text="\n".join([*lines, f"run folder: {one.folder}"]),
            known="it is no worse than in the baseline" if is_known else None,
        )


def _whys(result: Result) -> Iterator[str]:
    yield from (f"reason: {reason}" for reason in result.reasons)
    yield from (f"remedy: {remedy}" for remedy in result.remedies)
