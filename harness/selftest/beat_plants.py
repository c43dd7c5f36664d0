"""Defects of beat's ticks, each planted in what the real beat of a clean run wrote, or in a day by the book."""

from harness.records.event import Kind
from harness.records.values import Json
from harness.records.verdict import Fate, Verdict
from harness.selftest.evidence import Evidence, Line
from harness.selftest.plant import Plants
from harness.selftest.written_beat import (
    BEGIN_T,
    END_T,
    HOUR_S,
    HOURLY,
    WrittenBeat,
    as_timelapse,
    hours,
    o_clock,
    reschedule,
    wake_of,
)

FAIL, UNKNOWN, REMARK = Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS
PLANTS = Plants[Evidence]()
plant = PLANTS.add


def _day(evidence: Evidence, **own: Json) -> list[Line]:
    """Replace the real beat by one that lives through a day by the book, and return its lines."""
    evidence.without_beat()
    return WrittenBeat(evidence=evidence, **own).write()


@plant()
def control_of_a_day(evidence: Evidence) -> None:
    """Nothing: a day of beat by the book."""
    _day(evidence)


@plant({Fate.FAILED: -1})
def control_of_a_timelapse(evidence: Evidence) -> None:
    """Nothing: the same day as a time-lapse."""
    _day(evidence)
    as_timelapse(evidence)


@plant(TICK_MISSING=FAIL)
def ticks_passed_over(evidence: Evidence) -> None:
    """The real beat passes over two ticks in a row."""
    ticks = evidence.ticks()
    times = [float(tick["at"]) for tick in ticks]
    # Where beat was kept, a missing tick proves nothing: these two are from where it was kept least.
    gone = min(range(1, len(times) - 2), key=lambda number: times[number + 2] - times[number - 1])
    for tick in ticks[gone : gone + 2]:
        evidence.unsend(str(tick["task"]))


@plant(TICK_MISSING=FAIL)
def tick_missing(evidence: Evidence) -> None:
    """One tick of a day is not sent."""
    _day(evidence, ticks=hours(17))


@plant(TICK_DOUBLED=FAIL)
def tick_doubled(evidence: Evidence) -> None:
    """One tick is sent twice."""
    _day(evidence, ticks=[*hours(), o_clock(17) + 5.0])


@plant(TICK_LATE=FAIL)
def tick_late(evidence: Evidence) -> None:
    """One tick is sent 90 seconds late, and beat was idle."""
    _day(evidence, ticks=[*hours(17), o_clock(17) + 90.0])


@plant(TICK_EARLY=FAIL)
def tick_early(evidence: Evidence) -> None:
    """One tick is sent 20 seconds before it is due."""
    _day(evidence, ticks=[*hours(17), o_clock(17) - 20.0])


@plant(TICK_UNPREDICTABLE=REMARK, NOTHING_TICKED=REMARK)
def tick_unpredictable(evidence: Evidence) -> None:
    """An entry follows a rule that cannot be calculated."""
    _day(evidence, rule={"kind": "other", "text": "<solar: sunset>"})


@plant(TICKS_DELAYED=REMARK)
def ticks_delayed(evidence: Evidence) -> None:
    """Beat is kept for six minutes, and sends one tick late."""
    _day(evidence, stall=(o_clock(17) - 120.0, o_clock(17) + 240.0))


@plant(TICKS_STALLED=UNKNOWN)
def ticks_stalled(evidence: Evidence) -> None:
    """Beat is kept for an hour, and one tick is not sent."""
    _day(evidence, ticks=hours(17), stall=(o_clock(17) - 600.0, o_clock(18) - 5.0))


@plant({Fate.FAILED: -1}, TICKS_DOUBTFUL=UNKNOWN)
def ticks_doubtful(evidence: Evidence) -> None:
    """One tick of a time-lapse is as late as sending the one before took."""
    lines = _day(evidence, ticks=[*hours(18), o_clock(18) + 300.0])
    wake = wake_of(lines, o_clock(17))
    wake["took_s"] = 300.0
    awake = [
        line for line in lines if line["kind"] == "woke" and wake["at"] < float(line["at"]) < float(wake["at"]) + 300.0
    ]
    lines[:] = [line for line in lines if not any(line is one for one in awake)]
    as_timelapse(evidence)


@plant(TICKS_SKIPPED=REMARK)
def ticks_skipped(evidence: Evidence) -> None:
    """No beat is there for two hours."""
    _day(evidence, end_t=o_clock(16) - 600.0, ticks=[t for t in hours() if t < o_clock(16)])
    after = [t for t in hours() if t > o_clock(17)]
    WrittenBeat(evidence=evidence, pid=102, begin_t=o_clock(17) + 600.0, ticks=after).write()


@plant(TICKS_UNSCHEDULED=UNKNOWN)
def ticks_unscheduled(evidence: Evidence) -> None:
    """An entry is out of the schedule for an hour, and back."""
    lines = _day(evidence, ticks=hours(17))
    reschedule(lines, o_clock(17) - 600.0)
    reschedule(lines, o_clock(17) + 600.0, HOURLY)


@plant({Fate.FAILED: -1}, TICKS_UNSENT=UNKNOWN)
def ticks_unsent(evidence: Evidence) -> None:
    """The broker takes one tick of a time-lapse without an answer."""
    lines = _day(evidence)
    lines.remove(next(line for line in lines if line["kind"] == "accepted"))
    as_timelapse(evidence)


@plant({Fate.FAILED: -1}, TICKS_UNWATCHED=UNKNOWN)
def timelapse_unwatched(evidence: Evidence) -> None:
    """Beat is there for a part of a time-lapse only."""
    _day(evidence)
    as_timelapse(evidence, BEGIN_T, END_T + HOUR_S)


@plant(TICKS_UNWATCHED=UNKNOWN)
def ticks_unwatched(evidence: Evidence) -> None:
    """Beat never says that it is ready."""
    lines = _day(evidence)
    lines.remove(next(line for line in lines if line["kind"] == "ready"))


@plant(JOURNAL_INCOMPLETE=UNKNOWN, TICKS_UNWITNESSED=UNKNOWN)
def ticks_unwitnessed(evidence: Evidence) -> None:
    """A line of beat's journal is missing."""
    lines = _day(evidence)
    wakes = [line for line in lines if line["kind"] == "woke"]
    for n, line in enumerate(lines):
        line["n"] = n
    lines.remove(wakes[20])
    evidence.as_they_are.add(evidence.files_of("beat-1")[0])


@plant(NOTHING_TICKED=REMARK)
def nothing_ticked(evidence: Evidence) -> None:
    """No entry is due all day."""
    _day(evidence, rule={**HOURLY, "month_of_year": "1"}, ticks=())


@plant(BEAT_DIED=FAIL)
def beat_died(evidence: Evidence) -> None:
    """Beat ends with an error."""
    _day(evidence)
    evidence.say(evidence.files_of("beat-1")[0], Kind.DIED, error="OSError: no space")


@plant(ENTRY_SHADOWED=FAIL)
def entry_shadowed(evidence: Evidence) -> None:
    """Two periodic tasks have one name."""
    lines = _day(evidence)
    shadow = {"entry": "it", "lost": "<crontab: 0 7>", "kept": "<crontab: 0 *>", "named": False}
    next(line for line in lines if line["kind"] == "settings")["shadowed"] = [shadow]


@plant(ENTRIES_REMOVED=REMARK)
def entry_removed(evidence: Evidence) -> None:
    """An entry is taken out of the schedule."""
    lines = _day(evidence, ticks=[t for t in hours() if t < o_clock(17)])
    reschedule(lines, o_clock(17) - 600.0)
