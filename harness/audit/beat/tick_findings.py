"""The findings on beat's ticks: one for each thing that is wrong, or not known."""

from collections.abc import Iterator, Sequence

from harness.audit.beat.beat_history import Beats, Start
from harness.audit.beat.tick_records import FIRST, EntryTicks, Times, Window
from harness.records.finding_codes import Code
from harness.records.verdict import Finding, Verdict

UNTOLD = "in no schedule that beat spoke of"
"""The rule of an entry that was sent without being in any known schedule."""
_REASONS = 3
"""The number of errors of beat that a finding quotes. Each is a sentence, so that more would make it too long to
read."""


def findings(
    judged: Sequence[tuple[EntryTicks, Times]],
    starts: Sequence[Start],
    *,
    beats: Beats,
    window: Window | None,
    faults: Sequence[str],
) -> Iterator[Finding]:
    """Yield the findings, those on the witness first.

    Args:
        judged: the record of each entry, and when it was due while no beat ran.
        starts: all starts of beat, also those that were never ready.
        beats: those starts that were ready.
        window: the days of a time-lapse; None without one.
        faults: what is wrong with the journals.
    """
    yield from _witness_findings(starts, beats, window, faults)
    yield from _death_findings(starts)
    yield from _schedule_findings(beats)
    for record, skipped in judged:
        yield from _entry_findings(record, skipped, is_whole=not faults)
    records = [record for record, _ in judged]
    yield from _kept_findings(records, window)
    if beats.starts and not any(record.expected for record in records):
        verdict = Verdict.UNKNOWN if window else Verdict.PASS
        text = "no entry of the schedule was due that can be calculated, so nothing was shown about ticks."
        yield Finding(code=Code.NOTHING_TICKED, verdict=verdict, count=0, text=text)


def _witness_findings(
    starts: Sequence[Start], beats: Beats, window: Window | None, faults: Sequence[str]
) -> Iterator[Finding]:
    if faults:
        text = f"beat's journal is not whole, so ticks may have been sent that nobody knows of: {'; '.join(faults)}."
        yield Finding(code=Code.TICKS_UNWITNESSED, verdict=Verdict.UNKNOWN, count=len(faults), text=text)
    # A beat that lived in a worker, or ended with an error, has its own finding.
    is_unexplained = any(start.error is None and not start.is_embedded for start in starts) or not starts
    if not beats.starts and is_unexplained and (starts or window):
        text = "no beat ever said that it was ready, so nothing is known about ticks."
        yield Finding(code=Code.TICKS_UNWATCHED, verdict=Verdict.UNKNOWN, count=1, text=text)
    elif window and not any(since <= window.begin_t and window.end_t <= until for since, until in beats.there):
        text = "beat was not there all the time from --from to --to."
        yield Finding(code=Code.TICKS_UNWATCHED, verdict=Verdict.UNKNOWN, count=1, text=text)
    unsent = sum(start.unsent for start in beats.starts)
    if unsent and window:
        text = "beat tried to send them, and never said that the broker took them."
        yield Finding(code=Code.TICKS_UNSENT, verdict=Verdict.UNKNOWN, count=unsent, text=text)


def _death_findings(starts: Sequence[Start]) -> Iterator[Finding]:
    """Yield the findings on a beat that ended too early: nothing of its schedule was sent from then on."""
    for start in starts:
        whose = f"the beat of {start.node}" if start.is_embedded else start.node
        if start.error is not None:
            text = f"{whose} ended with an error, so that nothing more of its schedule was sent: {start.error}"
            yield Finding(code=Code.BEAT_DIED, verdict=Verdict.FAIL, count=1, text=text, subject=start.node)
        elif start.silent_s is not None:
            text = f"{whose} was not heard of any more, and {start.silent_s:.0f} s later its worker still took tasks."
            yield Finding(code=Code.BEAT_DIED, verdict=Verdict.FAIL, count=1, text=text, subject=start.node)
        elif start.is_embedded and start.ready_at is None:
            text = f"{whose} began, and never said that it was ready, so nothing is known about its ticks."
            yield Finding(code=Code.TICKS_UNWATCHED, verdict=Verdict.UNKNOWN, count=1, text=text, subject=start.node)


def _schedule_findings(beats: Beats) -> Iterator[Finding]:
    """Yield the findings on entries that are not in beat's schedule, or were removed from it."""
    starts = beats.starts
    for shadow in dict.fromkeys(shadow for start in starts for shadow in start.shadowed):
        advice = "" if shadow.named else "; give each one a `name`"
        text = f"{shadow.entry}: {shadow.kept} took the place of {shadow.lost}, which is never sent{advice}."
        verdict = Verdict.PASS if shadow.named else Verdict.FAIL
        yield Finding(code=Code.ENTRY_SHADOWED, verdict=verdict, count=1, text=text, subject=shadow.entry)
    gone = {
        entry: None
        for start in starts
        for period in start.periods
        for entry in period.rules
        if entry not in start.periods[-1].rules
    }
    if gone:
        text = (
            f"taken out of the schedule while beat went on, and not demanded from then on: {_named(', ', list(gone))}."
        )
        yield Finding(code=Code.ENTRIES_REMOVED, verdict=Verdict.PASS, count=len(gone), text=text)


_FAILURES = (
    ("missing", "due, and not sent"),
    ("doubled", "sent more than once"),
    ("late", "sent up to {:.0f} s late, and nothing kept beat from it for so long"),
    ("early", "sent before it was due"),
)


def _entry_findings(record: EntryTicks, skipped: Times, *, is_whole: bool) -> Iterator[Finding]:
    yield from _failure_findings(record, is_whole=is_whole)
    if record.expected is None:
        yield _unpredictable_finding(record)
    if skipped.count:
        text = f"{record.entry}: {skipped} (due while no beat was there; Celery makes up for one at most)"
        yield Finding(
            code=Code.TICKS_SKIPPED, verdict=Verdict.PASS, count=skipped.count, text=text, subject=record.entry
        )
    if (out := record.unscheduled).count:
        text = f"{record.entry}: {out} (due while it was not in beat's schedule, in which it was before and after)"
        yield Finding(
            code=Code.TICKS_UNSCHEDULED, verdict=Verdict.UNKNOWN, count=out.count, text=text, subject=record.entry
        )


def _failure_findings(record: EntryTicks, *, is_whole: bool) -> Iterator[Finding]:
    for name, words in _FAILURES:
        times: Times = getattr(record, name)
        if not times.count:
            continue
        said = f"; beat said: {'; '.join(record.reasons[:_REASONS])}" if name == "missing" and record.reasons else ""
        text = f"{record.entry}: {times} ({words.format(record.lateness_s.get('max', 0.0))}{said})"
        # The line of a tick that seems missing or late may be lost.
        verdict = Verdict.FAIL if is_whole or name not in {"missing", "late"} else Verdict.UNKNOWN
        yield Finding(code=Code(f"tick-{name}"), verdict=verdict, count=times.count, text=text, subject=record.entry)


def _unpredictable_finding(record: EntryTicks) -> Finding:
    text = f"{record.entry}: when it is due cannot be calculated ({record.rule}); it was sent {record.sent} times."
    # A rule that cannot be calculated is a remark; one that was not journaled is missing evidence.
    verdict = Verdict.UNKNOWN if record.rule == UNTOLD else Verdict.PASS
    return Finding(code=Code.TICK_UNPREDICTABLE, verdict=verdict, count=1, text=text, subject=record.entry)


def _kept_findings(records: Sequence[EntryTicks], window: Window | None) -> Iterator[Finding]:
    """Yield the findings on ticks that are late or missing while beat was held up."""
    advice = ": the machine could not hold this speed; lower --speed" if window else ""
    if delayed := [record for record in records if record.delayed.count]:
        named = _named(", ", [f"{record.entry} {record.delayed.count}" for record in delayed])
        text = f"sent once, and more than a minute late only because beat itself was kept for as long: {named}."
        count = sum(record.delayed.count for record in delayed)
        yield Finding(code=Code.TICKS_DELAYED, verdict=Verdict.PASS, count=count, text=text)
    if doubtful := [record for record in records if record.doubtful.count]:
        named = _named("; ", [f"{record.entry}: {record.doubtful}" for record in doubtful])
        text = f"{named} (sent late, and beat may have been kept for as long when it planned them{advice})"
        count = sum(record.doubtful.count for record in doubtful)
        yield Finding(code=Code.TICKS_DOUBTFUL, verdict=Verdict.UNKNOWN, count=count, text=text)
    if unproven := [record for record in records if record.unproven.count]:
        named = _named("; ", [f"{record.entry}: {record.unproven}" for record in unproven])
        text = (
            f"{named} (due, and not sent, and beat itself was kept until the next time or beyond "
            f"`beat_cron_starting_deadline`, which proves nothing{advice})"
        )
        count = sum(record.unproven.count for record in unproven)
        yield Finding(code=Code.TICKS_STALLED, verdict=Verdict.UNKNOWN, count=count, text=text)


def _named(between: str, entries: Sequence[str]) -> str:
    more = f" and {len(entries) - FIRST} more entries" if len(entries) > FIRST else ""
    return between.join(entries[:FIRST]) + more
