"""The verdict on a load test, from the audit of its tasks and the figures of its load."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.audit.audit import Audit
from harness.measure.figures import Figures, Objective, invalid, taken_by_host
from harness.measure.load_account import Counts, ObjectiveAccount
from harness.records.finding_codes import Code
from harness.records.verdict import Fate, Finding, Verdict

_UNACCOUNTED = (Fate.UNKNOWN, Fate.PENDING)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """The verdict on a load test."""

    exit_code: int
    """0: pass. 1: the audit failed, an objective was missed, or a task is not accounted for. 3: unknown."""
    reason: str
    """The reason of the verdict, in one sentence."""
    invalid: tuple[str, ...]
    """The reasons why the load was not as intended, one sentence each."""
    objectives: tuple[ObjectiveAccount, ...]


def judge(
    audited: Audit, figures: Figures | None, objectives: Sequence[Objective], *, broken_off: str | None = None
) -> Judgement:
    """Return the verdict on a load test.

    The first that applies decides: the audit failed, a task is not accounted for, the audit is unknown, the load is
    invalid, an objective was missed, no task can show an objective. A missed objective counts only under a valid load.
    If the host took much processor time, a missed objective makes the load invalid.

    Args:
        audited: the audit of the tasks.
        figures: the figures of the leg to judge; None for a search, which judges its own legs.
        objectives: the objectives that have to hold.
        broken_off: the reason why the load test has no result, in one sentence; None if it has one.
    """
    reasons = [*([broken_off] if broken_off else []), *(invalid(figures) if figures is not None else [])]
    shown = [_shown(one, figures) for one in objectives] if figures is not None else []
    if figures is not None and not reasons and any(one.holds is False for one in shown):
        reasons += taken_by_host(figures)
    exit_code, reason = _worst(audited, reasons, shown)
    return Judgement(exit_code=exit_code, reason=reason, invalid=tuple(reasons), objectives=tuple(shown))


def _shown(objective: Objective, figures: Figures) -> ObjectiveAccount:
    return ObjectiveAccount(text=objective.text, figure_s=objective.figure_s(figures), holds=objective.holds(figures))


def _worst(audited: Audit, reasons: Sequence[str], objectives: Sequence[ObjectiveAccount]) -> tuple[int, str]:
    if audited.verdict is Verdict.FAIL:
        verdict, reason = Verdict.FAIL, f"the audit failed: {_codes(audited, Verdict.FAIL)}."
    elif count := sum(audited.fates[fate] for fate in _UNACCOUNTED):
        verdict, reason = Verdict.FAIL, f"{count:,} {'task is' if count == 1 else 'tasks are'} not accounted for."
    elif audited.verdict is Verdict.UNKNOWN:
        verdict, reason = Verdict.UNKNOWN, f"nobody can say whether it passed: {_codes(audited, Verdict.UNKNOWN)}."
    elif reasons:
        verdict = Verdict.UNKNOWN
        reason = "nothing is known of the system under test: the load was not what it should have been."
    elif missed := [one.text for one in objectives if one.holds is False]:
        verdict, reason = Verdict.FAIL, f"an objective was missed: {', '.join(missed)}."
    elif unseen := [one.text for one in objectives if one.holds is None]:
        verdict, reason = Verdict.UNKNOWN, f"no task in the measured window can show {', '.join(unseen)}."
    else:
        verdict, reason = Verdict.PASS, "every task is accounted for, as it was promised."
    return verdict.exit_code, reason


def _codes(audited: Audit, verdict: Verdict) -> str:
    return ", ".join(dict.fromkeys(finding.code for finding in audited.findings if finding.verdict is verdict))


def differences(counts: Counts, generated: int, *, via_http: bool, broken: Sequence[str]) -> Iterator[Finding]:
    """Yield findings if the generators' counts differ from one another or from the journal, and for their errors.

    Args:
        counts: the counts of all generators together.
        generated: the number of tasks that they intended to send, according to the journal.
        via_http: True if the counts are those of requests. An accepted request has led to a task; one that was refused,
            or whose outcome is unknown, may have led to none.
        broken: the errors of the generators.
    """
    if counts.offered != counts.sent + counts.dropped or counts.sent != counts.done + counts.broken:
        arrivals = f"{counts.offered} offered, {counts.sent} sent, {counts.dropped} dropped"
        figures = f"{arrivals}, {counts.done} done, {counts.broken} broken"
        yield _unknown(Code.OFFER_DIFFERS, f"the generators' own counts of arrivals do not add up: {figures}.")
    told = counts.accepted + counts.refused + counts.unknown
    least = counts.accepted if via_http else told
    if not least <= generated <= told:
        yield _unknown(Code.SENT_DIFFERS, f"the generators sent {told} tasks, and the journal knows of {generated}.")
    for reason in broken:
        yield _unknown(Code.GENERATOR_BROKEN, reason)


def _unknown(code: Code, text: str) -> Finding:
    return Finding(code=code, verdict=Verdict.UNKNOWN, count=1, text=text)
