"""The verdict on a load test: what the audit says of the tasks, and what the figures say of the load."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.audit.audit import Audit
from harness.measure.figures import Figures, Objective, invalid, taken_by_host
from harness.measure.load_account import Counts, ObjectiveAccount
from harness.records.verdict import Fate, Finding, Verdict

_UNACCOUNTED = (Fate.UNKNOWN, Fate.PENDING)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What became of a load test."""

    exit_code: int
    """0 pass; 1 the audit failed, an objective was missed, or a task is not accounted for; 3 nobody can say."""
    reason: str
    """Why, in one sentence."""
    invalid: tuple[str, ...]
    """Why the load was not what it should have been, a sentence each."""
    objectives: tuple[ObjectiveAccount, ...]


def judge(
    audited: Audit, figures: Figures | None, objectives: Sequence[Objective], *, broken_off: str | None = None
) -> Judgement:
    """The worst counts, in this order: a failed audit, an invalid or unknown run, a missed objective.

    An objective that was missed under a load that was none says nothing, and so does one that no task can show, or that
    was missed while the host took the machine away.

    Args:
        audited: what became of the tasks.
        figures: of the leg to be judged; None for a search, which judges its own.
        objectives: what has to hold.
        broken_off: why the load test has no result, in one sentence; None if it has.
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
    """What only a load test has to say: whether the generators' counts agree, with one another and with the journal.

    Args:
        counts: of all generators together.
        generated: how many tasks the journal says that they intended.
        via_http: whether the counts are those of requests. One that was refused or broke off need not have led to a
            task; all others have.
        broken: what went wrong in the generators.
    """
    if counts.offered != counts.sent + counts.dropped or counts.sent != counts.done + counts.broken:
        arrivals = f"{counts.offered} offered, {counts.sent} sent, {counts.dropped} dropped"
        figures = f"{arrivals}, {counts.done} done, {counts.broken} broken"
        yield _unknown("offer-differs", f"the generators' own counts of arrivals do not add up: {figures}.")
    told = counts.accepted + counts.refused + counts.unknown
    least = counts.accepted if via_http else told
    if not least <= generated <= told:
        yield _unknown("sent-differs", f"the generators sent {told} tasks, and the journal knows of {generated}.")
    for reason in broken:
        yield _unknown("generator-broken", reason)


def _unknown(code: str, text: str) -> Finding:
    return Finding(code=code, verdict=Verdict.UNKNOWN, count=1, text=text)
