"""Beat's ticks: each was sent, once, and in time; and everything that is wrong with them has something to show it."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from harness.audit.audit import Audit, audit
from harness.audit.beat import beat_log
from harness.audit.beat.beat_history import Spans, Wake
from harness.audit.beat.crontab import Crontab
from harness.audit.beat.tick_records import EntryTicks, Ticks, Times, Window
from harness.audit.beat.tick_rules import account
from harness.audit.run_folder import RunFolder
from harness.records.expectation import Promise
from harness.records.verdict import Verdict
from harness.report import terminal
from tests.unit.audit.beat_journal import BERLIN, DAY, HOUR, Beat, at, crontab, every, interval

HOURLY = crontab("0")
AT_HALF_PAST_TWO = crontab("30", "2")


def lived(  # noqa: PLR0917 - always in this order, and a test has to be legible.
    folder: Path,
    begin: float,
    end: float,
    rule: Mapping[str, Any],
    ticks: Iterable[float],
    stall: tuple[float, float] = (0.0, 0.0),
) -> Ticks:
    """Return the ticks of one beat with one entry, `it`."""
    Beat(folder).live(begin, end, {"it": rule}, {"it": ticks}, stall)
    return said(folder)


def said(folder: Path, window: Window | None = None) -> Ticks:
    ticks = account(folder, window)
    assert ticks is not None
    return ticks


def codes(ticks: Ticks, *verdicts: Verdict) -> list[str]:
    wanted = verdicts or (Verdict.FAIL, Verdict.UNKNOWN)
    return [finding.code for finding in ticks.findings if finding.verdict in wanted]


def only(ticks: Ticks) -> EntryTicks:
    (entry,) = ticks.entries
    return entry


def without(times: Sequence[float], *texts: str) -> list[float]:
    gone = {at(text) for text in texts}
    assert gone <= set(times)
    return [t for t in times if t not in gone]


# --------------------------------------------------------------------------------------------------- ordinary days

NOON, NEXT_NOON = at("2026-11-10T12:10"), at("2026-11-11T12:10")


@pytest.mark.parametrize(
    ("rule", "step_s", "count"),
    [(HOURLY, HOUR, 24), (crontab("*/15"), 900.0, 96), (crontab("0", "*/3"), 3 * HOUR, 8)],
)
def test_an_entry_that_is_sent_each_time_passes(
    tmp_path: Path, rule: dict[str, Any], step_s: float, count: int
) -> None:
    # The hours of Berlin are whole hours of Unix time, and threes of them begin one hour off.
    off_s = HOUR if step_s > HOUR else 0.0
    times = [t - off_s for t in every(step_s, NOON + off_s, NEXT_NOON + off_s)]
    ticks = lived(tmp_path, NOON, NEXT_NOON, rule, times)
    assert ticks.findings == ()
    assert (only(ticks).expected, only(ticks).sent) == (count, count)
    assert only(ticks).lateness_s["max"] == pytest.approx(0.001, abs=1e-3)


def test_one_that_is_left_out_is_missing_and_named(tmp_path: Path) -> None:
    times = without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T17:00")
    ticks = lived(tmp_path, NOON, NEXT_NOON, HOURLY, times)
    assert codes(ticks) == ["tick-missing"]
    assert ticks.findings[0].text == "it: 2026-11-10T17:00+01:00 (due, and not sent)"
    assert (only(ticks).expected, only(ticks).sent) == (24, 23)


@pytest.mark.parametrize(("count", "more"), [(10, ""), (11, " and 1 more")])
def test_of_many_that_are_missing_ten_are_named(tmp_path: Path, count: int, more: str) -> None:
    ticks = lived(tmp_path, NOON, NEXT_NOON, HOURLY, every(HOUR, NOON, NEXT_NOON)[count:])
    assert ticks.findings[0].text == f"it: {', '.join(only(ticks).missing.first)}{more} (due, and not sent)"
    assert len(only(ticks).missing.first) == 10


def test_a_time_is_shown_to_the_nearest_millisecond() -> None:
    assert Times.of([59.9996, 60.0004, 61.5], BERLIN).first == (
        "1970-01-01T01:01+01:00",
        "1970-01-01T01:01+01:00",
        "1970-01-01T01:01:01+01:00",
    )


def test_one_that_is_due_in_the_moment_that_beat_is_ready_counts(tmp_path: Path) -> None:
    begin = at("2026-11-10T13:00")
    ticks = lived(tmp_path, begin, NEXT_NOON, HOURLY, every(HOUR, begin, NEXT_NOON))
    assert ticks.findings == ()
    assert (only(ticks).expected, only(ticks).sent) == (24, 24)


def test_the_last_one_is_missing_too(tmp_path: Path) -> None:
    times = without(every(HOUR, NOON, NEXT_NOON), "2026-11-11T12:00")
    assert only(lived(tmp_path, NOON, NEXT_NOON, HOURLY, times)).missing.first == ("2026-11-11T12:00+01:00",)


def test_one_that_beat_did_not_live_to_send_is_not_missing(tmp_path: Path) -> None:
    end = at("2026-11-10T17:00") + 0.5
    ticks = lived(tmp_path, NOON, end, HOURLY, every(HOUR, NOON, end - 1.0))
    assert ticks.findings == ()
    assert only(ticks).expected == 4


def test_one_that_was_the_last_thing_that_beat_did_counts(tmp_path: Path) -> None:
    end = at("2026-11-10T17:00") + 0.5
    beat = Beat(tmp_path)
    beat.live(NOON + 7.0, end, {"it": HOURLY}, {"it": every(HOUR, NOON, end)})
    beat.die()
    ticks = said(tmp_path)
    assert ticks.findings == ()
    assert (only(ticks).expected, only(ticks).sent) == (5, 5)


def test_of_entries_that_are_due_at_once_those_that_beat_did_not_live_to_send_are_not_missing(tmp_path: Path) -> None:
    five = at("2026-11-10T17:00")
    beat = Beat(tmp_path)
    names = ("a", "b", "c", "d")
    beat.live(NOON, five - 60.0, dict.fromkeys(names, HOURLY), dict.fromkeys(names, every(HOUR, NOON, five - 60.0)))
    # Sending takes long; after the third it is killed.
    for number, (entry, took_s) in enumerate((("a", 50.0), ("c", 10.0), ("d", 0.0))):
        begin = five + (0.0, 50.0, 60.0)[number]
        beat.say("intended", task=entry, name="tick", entry=entry, at=begin)
        beat.say("accepted", task=entry)
        beat.say("woke", at=begin, took_s=took_s, next=begin + took_s)
    beat.write()
    ticks = said(tmp_path)
    assert ticks.findings == ()
    assert [entry.sent for entry in ticks.entries] == [5, 4, 5, 5]


def test_one_that_was_sent_before_beat_was_ready_counts(tmp_path: Path) -> None:
    begin = at("2026-11-10T12:00:01")
    ticks = lived(tmp_path, begin, NEXT_NOON, HOURLY, [begin - 2.0, *every(HOUR, begin, NEXT_NOON)])
    assert codes(ticks) == ["tick-early"]


def test_one_that_is_sent_again_long_before_one_that_is_missing_is_doubled(tmp_path: Path) -> None:
    times = [*without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T18:00"), at("2026-11-10T17:10")]
    assert sorted(codes(lived(tmp_path, NOON, NEXT_NOON, HOURLY, times))) == ["tick-doubled", "tick-missing"]


def test_one_that_is_sent_twice_is_doubled(tmp_path: Path) -> None:
    times = [*every(HOUR, NOON, NEXT_NOON), at("2026-11-10T17:00") + 0.5]
    ticks = lived(tmp_path, NOON, NEXT_NOON, HOURLY, times)
    assert codes(ticks) == ["tick-doubled"]
    assert only(ticks).doubled.first == ("2026-11-10T17:00+01:00",)
    assert only(ticks).sent == 25


@pytest.mark.parametrize(("delay_s", "expected"), [(59.0, []), (61.0, ["tick-late"])])
def test_one_that_is_sent_more_than_a_minute_later_is_late(tmp_path: Path, delay_s: float, expected: list[str]) -> None:
    times = [*without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T17:00"), at("2026-11-10T17:00") + delay_s]
    ticks = lived(tmp_path, NOON, NEXT_NOON, HOURLY, times)
    assert codes(ticks) == expected
    assert only(ticks).late.count == len(expected)
    assert only(ticks).lateness_s["max"] == pytest.approx(delay_s, abs=0.01)


@pytest.mark.parametrize(("lead_s", "expected"), [(0.009, []), (20.0, ["tick-early"])])
def test_one_that_is_sent_before_its_time_is_early_and_not_missing(
    tmp_path: Path, lead_s: float, expected: list[str]
) -> None:
    times = [*without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T17:00"), at("2026-11-10T17:00") - lead_s]
    ticks = lived(tmp_path, NOON, NEXT_NOON, HOURLY, times)
    assert codes(ticks) == expected
    assert (only(ticks).missing.count, only(ticks).doubled.count) == (0, 0)
    assert (only(ticks).expected, only(ticks).sent) == (24, 24)


def test_one_right_after_the_start_that_was_never_due_is_early(tmp_path: Path) -> None:
    ticks = lived(tmp_path, NOON, NEXT_NOON, HOURLY, [NOON + 5.0, *every(HOUR, NOON, NEXT_NOON)])
    assert codes(ticks) == ["tick-early"]


def test_the_only_tick_of_the_moment_that_beat_was_ready_is_no_early_one_of_the_next_time(tmp_path: Path) -> None:
    begin = at("2026-11-10T12:00")
    times = without(every(60.0, begin, begin + 600.0), "2026-11-10T12:00", "2026-11-10T12:01")
    ticks = lived(tmp_path, begin, begin + 630.0, crontab("*"), [begin + 45.0, *times, begin + 600.0])
    assert codes(ticks) == ["tick-missing"]
    assert only(ticks).missing.first == ("2026-11-10T12:01+01:00",)


@pytest.mark.parametrize(("after_s", "expected"), [(30.0, ["tick-missing", "tick-doubled"]), (30.25, ["tick-early"])])
def test_a_tick_that_is_no_nearer_to_the_next_time_is_no_early_one_of_it(
    tmp_path: Path, after_s: float, expected: list[str]
) -> None:
    begin = at("2026-11-10T12:00")
    times = without(every(60.0, begin + 60.0, begin + 630.0), "2026-11-10T12:05")
    beat = Beat(tmp_path)
    second = at("2026-11-10T12:04") + after_s
    beat.live(begin, begin + 630.0, {"it": crontab("*")}, {"it": [begin, *times, second]})
    beat.sent(second)[0]["at"] = second
    beat.write()
    assert codes(said(tmp_path)) == expected


# -------------------------------------------------------------------------------------------- changes of the clock

AUTUMN = at("2026-10-24T12:10"), at("2026-10-26T12:10")
SPRING = at("2027-03-27T12:10"), at("2027-03-29T12:10")


@pytest.mark.parametrize(("begin", "end"), [AUTUMN, SPRING])
@pytest.mark.parametrize(("rule", "step_s"), [(HOURLY, HOUR), (crontab("*/15"), 900.0)])
def test_a_wildcard_ticks_in_the_repeated_hour_and_not_in_the_skipped_one(
    tmp_path: Path, begin: float, end: float, rule: dict[str, Any], step_s: float
) -> None:
    ticks = lived(tmp_path, begin, end, rule, every(step_s, begin, end))
    assert ticks.findings == ()
    # From ten past noon to ten past noon is an hour more than two days, or one less.
    assert only(ticks).sent == (end - begin) / step_s


def test_a_repeated_hour_that_is_passed_over_is_missing(tmp_path: Path) -> None:
    times = without(every(HOUR, *AUTUMN), "2026-10-25T02:00+01:00")
    assert only(lived(tmp_path, *AUTUMN, HOURLY, times)).missing.first == ("2026-10-25T02:00+01:00",)


@pytest.mark.parametrize(
    ("span", "sent", "expected"),
    [
        (AUTUMN, ["2026-10-25T02:30+02:00", "2026-10-26T02:30"], []),
        (AUTUMN, ["2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00", "2026-10-26T02:30"], ["tick-doubled"]),
        (AUTUMN, ["2026-10-25T02:30+01:00", "2026-10-26T02:30"], ["tick-late"]),
        (AUTUMN, ["2026-10-26T02:30"], ["tick-missing"]),
        (SPRING, ["2027-03-28T03:00+02:00", "2027-03-29T02:30"], []),
        (SPRING, ["2027-03-28T03:30+02:00", "2027-03-29T02:30"], ["tick-late"]),
        (SPRING, ["2027-03-28T01:30+01:00", "2027-03-29T02:30"], ["tick-early"]),
        (SPRING, ["2027-03-29T02:30"], ["tick-missing"]),
    ],
)
def test_a_fixed_time_ticks_once_when_the_clock_is_changed(
    tmp_path: Path, span: tuple[float, float], sent: list[str], expected: list[str]
) -> None:
    ticks = lived(tmp_path, *span, AT_HALF_PAST_TWO, map(at, sent))
    assert sorted(codes(ticks)) == expected


def test_beat_that_starts_in_the_repeated_hour_owes_nothing_of_the_first(tmp_path: Path) -> None:
    begin, end = at("2026-10-25T02:10+01:00"), at("2026-10-25T12:00+01:00")
    ticks = lived(tmp_path, begin, end, AT_HALF_PAST_TWO, [])
    assert codes(ticks) == []
    assert only(ticks).expected == 0


def test_a_tick_of_an_entry_whose_last_hour_was_skipped_by_the_clock_is_early(tmp_path: Path) -> None:
    begin = at("2027-05-10T12:10")
    ticks = lived(tmp_path, begin, begin + HOUR, crontab("*/5", "2", "28", "3"), [begin + 600.0])
    assert codes(ticks) == ["tick-early"]


def iso(times: Iterable[float], zone: str) -> list[str]:
    return [datetime.fromtimestamp(t, ZoneInfo(zone)).strftime("%dT%H:%M%z") for t in times]


# The clock of Lord Howe goes by half an hour: from 02:00 to 02:30, and from 02:00 back to 01:30.
@pytest.mark.parametrize(
    ("zone", "begin", "fields", "expected"),
    [
        ("Australia/Lord_Howe", "2026-10-04T01:00+10:30", ("*/20", "3"), ["04T03:00", "04T03:20", "04T03:40"]),
        ("Australia/Lord_Howe", "2026-10-04T01:00+10:30", ("*/15", "1-3/2"), ["04T01:00", "04T01:15", "04T01:30",
                                                    "04T01:45", "04T03:00", "04T03:15", "04T03:30", "04T03:45"]),
        ("Australia/Lord_Howe", "2026-10-04T01:00+10:30", ("15", "2"), ["04T02:30"]),
        ("Australia/Lord_Howe", "2026-10-04T01:00+10:30", ("0,10,20", "2"), ["04T02:30"]),
        ("Australia/Lord_Howe", "2026-04-05T01:10+11:00", ("45", "*"), ["05T01:45", "05T01:45",
                                                                            "05T02:45", "05T03:45"]),
        ("Australia/Lord_Howe", "2026-04-05T01:10+11:00", ("45", "1"), ["05T01:45"]),
        ("Australia/Lord_Howe", "2026-04-05T01:10+11:00", ("*/30", "2"), ["05T02:00", "05T02:30"]),
        # Beat begins, or ends, in an hour that comes twice.
        ("Europe/Berlin", "2026-10-25T02:50+02:00", ("*/20", "2"), ["25T02:00", "25T02:20", "25T02:40"]),
        ("Europe/Berlin", "2026-10-24T23:11+02:00", ("30", "*"), ["24T23:30", "25T00:30", "25T01:30", "25T02:30"]),
        # Samoa left out a whole day.
        ("Pacific/Apia", "2011-12-29T23:00-10:00", ("*/30", "*"), ["29T23:00", "29T23:30", "31T00:00", "31T00:30",
                                                               "31T01:00", "31T01:30", "31T02:00", "31T02:30"]),
        ("Pacific/Apia", "2011-12-29T23:00-10:00", ("30", "12", "30"), ["31T00:00"]),
        ("Asia/Tokyo", "2026-10-04T01:00+09:00", ("30", "2"), ["04T02:30"]),
    ],
)  # fmt: skip
def test_a_clock_that_is_changed_by_another_time_than_an_hour_is_understood(
    zone: str, begin: str, fields: tuple[str, ...], expected: list[str]
) -> None:
    rule = crontab(*fields)
    since = datetime.fromisoformat(begin).timestamp()
    times = Crontab.of(rule, ZoneInfo(zone)).times(since, since + 4 * HOUR - 1.0)
    assert [text[:-5] for text in iso((t for t in times if t >= since), zone)] == expected


@pytest.mark.parametrize(
    ("fields", "last"),
    [
        (("0", "0", "29", "2"), "2024-02-29T00:00"),
        (("0", "0", "29", "2", "tue"), "2000-02-29T00:00"),
        (("*",), "2026-11-10T12:10"),
        # To the minute a day before.
        (("10", "12", "9", "11"), "2026-11-09T12:10"),
        # In 2021 that hour was skipped, as in 2027; what is wild goes by what passes.
        (("*/5", "2", "28", "3"), "2026-03-28T02:55"),
    ],
)
def test_the_last_time_before_beat_began_is_found_however_long_ago(fields: tuple[str, ...], last: str) -> None:
    assert Crontab.of(crontab(*fields), BERLIN).times(NOON, NOON)[0] == at(last)


# ------------------------------------------------------------------------------------------------ a machine too slow


def test_what_is_missing_while_beat_was_kept_proves_nothing(tmp_path: Path) -> None:
    stall = at("2026-11-10T16:50"), at("2026-11-10T18:00") - 5.0
    times = without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T17:00")
    ticks = lived(tmp_path, NOON, NEXT_NOON, HOURLY, times, stall)
    assert codes(ticks) == ["ticks-stalled"]
    assert "it: 2026-11-10T17:00+01:00" in ticks.findings[0].text
    assert "--speed" not in ticks.findings[0].text
    (finding,) = said(tmp_path, Window(begin_t=NOON + 60.0, end_t=NEXT_NOON - 60.0)).findings
    assert "lower --speed" in finding.text


@pytest.mark.parametrize(("begin", "end"), [("15:20", "15:40"), ("16:40", "17:20"), ("17:10", "17:50")])
def test_what_is_missing_though_beat_was_kept_at_another_time_or_for_less_is_missing(
    tmp_path: Path, begin: str, end: str
) -> None:
    stall = at(f"2026-11-10T{begin}"), at(f"2026-11-10T{end}")
    times = without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T17:00")
    assert codes(lived(tmp_path, NOON, NEXT_NOON, HOURLY, times, stall)) == ["tick-missing"]


@pytest.mark.parametrize("gone", ["2026-11-10T12:30", "2026-11-10T13:00"])
def test_a_tick_that_is_missing_from_every_minute_is_missing(tmp_path: Path, gone: str) -> None:
    begin, end = at("2026-11-10T12:00:30"), at("2026-11-10T13:00:30")
    times = without(every(60.0, begin, end), gone)
    assert codes(lived(tmp_path, begin, end, crontab("*"), times)) == ["tick-missing"]


def test_a_tick_that_beat_was_kept_from_long_before_it_was_due_is_late(tmp_path: Path) -> None:
    times = [*without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T17:00"), at("2026-11-10T17:30")]
    stall = at("2026-11-10T16:10"), at("2026-11-10T16:55")
    assert codes(lived(tmp_path, NOON, NEXT_NOON, HOURLY, times, stall)) == ["tick-late"]


FIVE, SIX = at("2026-11-10T17:00"), at("2026-11-10T18:00")


def exact(folder: Path, rule: Mapping[str, Any], wakes: Iterable[tuple[float, float, float]], *sent_s: float) -> Ticks:
    """Return the ticks of a beat that was ready ten minutes before five; its wakes and sends are seconds after five.

    Of each wake there is when it began, for how long it went on, and when the next was to be.
    """
    beat = Beat(folder)
    beat.open()
    schedule = [{"entry": "it", "name": "tick", **rule}]
    beat.say("settings", timezone="Europe/Berlin", at=FIVE - 600.0, schedule=schedule)
    beat.say("ready", at=FIVE - 600.0)
    for at_s, took_s, next_s in wakes:
        for tick_s in sent_s:
            if at_s <= tick_s <= at_s + took_s:
                beat.say("intended", task=f"{tick_s}", name="tick", entry="it", at=FIVE + tick_s)
                beat.say("accepted", task=f"{tick_s}", confirmed=True)
        beat.say("woke", at=FIVE + at_s, took_s=took_s, next=FIVE + next_s)
    beat.write()
    return said(folder)


@pytest.mark.parametrize(("more_s", "code"), [(0.0, "ticks-delayed"), (0.25, "tick-late")])
def test_a_tick_may_be_a_minute_later_than_beat_was_kept(tmp_path: Path, more_s: float, code: str) -> None:
    # It was kept for half a minute, slept for one, and only then sent it.
    wakes = [(-600.0, 0.5, 0.0), (29.5, 0.5, 90.0 + more_s), (90.0 + more_s, 0.5, 390.0)]
    assert codes(exact(tmp_path, crontab("0", "17"), wakes, 90.0 + more_s), *Verdict) == [code]


@pytest.mark.parametrize(("late_s", "expected"), [(60.0, []), (60.25, ["ticks-delayed"])])
def test_a_tick_that_is_a_minute_late_and_no_more_is_in_time(
    tmp_path: Path, late_s: float, expected: list[str]
) -> None:
    wakes = [(-600.0, 0.5, 0.0), (0.0, late_s + 1.0, 390.0), (390.0, 0.5, 690.0)]
    assert codes(exact(tmp_path, crontab("0", "17"), wakes, late_s), *Verdict) == expected


@pytest.mark.parametrize(("free_s", "code"), [(60.0, "ticks-stalled"), (60.25, "tick-missing")])
def test_a_tick_that_is_missing_may_have_had_a_minute_in_which_nothing_kept_beat(
    tmp_path: Path, free_s: float, code: str
) -> None:
    wakes = [(-600.0, 0.5, free_s), (3_600.0, 1.0, 3_900.0), (3_900.0, 1.0, 4_200.0)]
    ticks = exact(tmp_path, HOURLY, wakes, 3_600.0)
    assert codes(ticks) == [code]
    assert [*only(ticks).missing.first, *only(ticks).unproven.first] == ["2026-11-10T17:00+01:00"]


def test_a_tick_that_is_as_late_as_beat_was_kept_is_a_remark(tmp_path: Path) -> None:
    stall = at("2026-11-10T16:58"), at("2026-11-10T17:04")
    ticks = lived(tmp_path, NOON, NEXT_NOON, HOURLY, every(HOUR, NOON, NEXT_NOON), stall)
    assert codes(ticks) == []
    assert codes(ticks, Verdict.PASS) == ["ticks-delayed"]
    assert only(ticks).lateness_s["max"] == pytest.approx(240.0, abs=0.01)


WINDOW = Window(begin_t=NOON + 60.0, end_t=NEXT_NOON - 60.0)


@pytest.mark.parametrize(
    ("planned_s", "window", "expected"),
    [
        (None, None, ["tick-late"]),
        (None, WINDOW, ["tick-late"]),
        (240.0, None, ["tick-late"]),
        (179.75, WINDOW, ["tick-late"]),
        (180.0, WINDOW, ["ticks-doubtful"]),
    ],
)
def test_a_first_tick_is_late_though_the_start_took_as_long_unless_planning_it_may_have(
    tmp_path: Path, planned_s: float | None, window: Window | None, expected: list[str]
) -> None:
    times = [*without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T13:00"), at("2026-11-10T13:04")]
    beat = Beat(tmp_path)
    beat.live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": times})
    beat.wake(NOON)["took_s"] = 250.0
    # So that all times until then are whole seconds.
    beat.wake(at("2026-11-10T13:00"))["took_s"] = 0.0
    sent, _ = beat.sent(at("2026-11-10T13:04"))
    sent["at"] = at("2026-11-10T13:04")
    if planned_s is not None:
        beat.wake(NOON)["planned_s"] = planned_s
    beat.write()
    ticks = said(tmp_path, window)
    assert codes(ticks) == expected
    assert (only(ticks).late.count, only(ticks).doubtful.count) == ((1, 0) if expected == ["tick-late"] else (0, 1))


def slow(folder: Path, took_s: float, late_s: float, **tick: Any) -> Beat:
    """Return a beat that sent the tick of 17:00 for `took_s`, and that of 18:00 with a delay of `late_s`."""
    times = [*without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T18:00"), at("2026-11-10T18:00") + late_s]
    beat = Beat(folder)
    beat.live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": times})
    sent, wake = beat.sent(at("2026-11-10T17:00"))
    wake["took_s"] = took_s
    sent.update(tick)
    beat.lines = [
        line for line in beat.lines if not (line["kind"] == "woke" and wake["at"] < line["at"] < wake["at"] + took_s)
    ]
    late, _ = beat.sent(SIX)
    late["at"] = SIX + late_s
    for line in beat.lines:
        if line["kind"] == "woke" and SIX <= line["at"] < SIX + late_s:
            # So that all times until then are whole seconds.
            line["took_s"] = 0.0
    beat.write()
    return beat


@pytest.mark.parametrize(
    ("window", "took_s", "late_s", "following", "expected", "remarks"),
    [
        # The schedule itself had it at six, and a fast clock ran on while beat sent the one before.
        (WINDOW, 300.0, 300.0, (SIX - 0.5, SIX + 0.5), [], ["ticks-delayed"]),
        (WINDOW, 300.0, 300.0, (SIX + 1.0, SIX + 1.0), [], ["ticks-delayed"]),
        (WINDOW, 300.0, 300.0, (SIX - 1.0, SIX - 1.0), [], ["ticks-delayed"]),
        (WINDOW, 300.0, 300.0, (SIX - 300.0, SIX + 300.0), [], ["ticks-delayed"]),
        # It had the one before, and that time was over when beat was done.
        (WINDOW, 3_900.0, 340.0, (SIX - HOUR, SIX - HOUR), [], ["ticks-delayed"]),
        # The schedule had it at another time, or that is not told.
        (WINDOW, 300.0, 300.0, (SIX + 300.0, SIX + 300.0), ["tick-late"], []),
        (WINDOW, 300.0, 300.0, (SIX - 300.0, SIX - 300.0), ["tick-late"], []),
        (WINDOW, 300.0, 300.0, (SIX - 1.25, SIX - 1.25), ["tick-late"], []),
        (WINDOW, 300.0, 300.0, None, ["ticks-doubtful"], []),
        (WINDOW, 3_900.0, 400.0, (SIX - HOUR + 120.0, SIX - HOUR + 120.0), ["tick-late"], []),
        # Beat took less time than that, by a minute or by more.
        (WINDOW, 300.0, 360.0, (SIX, SIX), [], ["ticks-delayed"]),
        (WINDOW, 300.0, 360.25, (SIX, SIX), ["tick-late"], []),
        (WINDOW, 230.0, 300.0, (SIX, SIX), ["tick-late"], []),
        # Nobody's clock ran faster than beat's: it planned the next one too late, and that is its own fault.
        (None, 300.0, 300.0, (SIX, SIX), ["tick-late"], []),
    ],
)
def test_what_beat_was_busy_with_before_a_tick_was_due_is_an_excuse_under_a_fast_clock_alone(  # noqa: PLR0917
    tmp_path: Path,
    window: Window | None,
    took_s: float,
    late_s: float,
    following: tuple[float, float] | None,
    expected: list[str],
    remarks: list[str],
) -> None:
    slow(tmp_path, took_s, late_s, following=following)
    ticks = said(tmp_path, window)
    assert codes(ticks) == expected
    assert codes(ticks, Verdict.PASS) == remarks


def test_what_beat_was_busy_with_is_told_of_its_first_tick_too(tmp_path: Path) -> None:
    beat = Beat(tmp_path)
    begin = at("2026-11-10T16:40")
    beat.live(
        begin, NEXT_NOON, {"it": HOURLY}, {"it": [t for t in every(HOUR, begin, NEXT_NOON) if t != SIX] + [SIX + 300.0]}
    )
    sent, wake = beat.sent(begin)
    wake["took_s"] = 300.0
    sent["following"] = (SIX, SIX)
    beat.write()
    ticks = said(tmp_path, Window(begin_t=begin + 60.0, end_t=NEXT_NOON - 60.0))
    assert codes(ticks, *Verdict) == ["ticks-delayed"]


@pytest.mark.parametrize(("waited_s", "expected"), [(30.75, []), (31.0, ["tick-missing"])])
def test_a_tick_is_still_to_come_for_as_long_as_beat_ever_took_to_send_one(
    tmp_path: Path, waited_s: float, expected: list[str]
) -> None:
    end = at("2026-11-10T17:00") + waited_s
    beat = Beat(tmp_path)
    beat.live(NOON, end, {"it": HOURLY}, {"it": every(HOUR, NOON, end - 60.0)})
    _, wake = beat.sent(NOON)
    wake["took_s"] = 30.0
    beat.write()
    assert codes(said(tmp_path)) == expected


def test_the_last_tick_that_the_schedule_had_at_a_time_that_never_came_is_late(tmp_path: Path) -> None:
    beat = slow(tmp_path, 300.0, 300.0, following=(SIX + 300.0, SIX + 300.0))
    beat.lines = [line for line in beat.lines if line.get("at", 0.0) < SIX + 900.0]
    beat.write()
    assert codes(said(tmp_path, Window(begin_t=NOON + 60.0, end_t=SIX + 600.0))) == ["tick-late"]


# It was done with the one before at five past five, and sent this one at five past six.
@pytest.mark.parametrize("clock", ["17:05", "17:30", "18:05"])
@pytest.mark.parametrize(("planned_s", "expected"), [(1.0, ["tick-late"]), (290.0, ["ticks-doubtful"])])
def test_a_tick_that_was_planned_anew_since_the_one_before_is_not_excused_by_that_one(
    tmp_path: Path, clock: str, planned_s: float, expected: list[str]
) -> None:
    beat = slow(tmp_path, 300.0, 300.0, following=(SIX, SIX))
    planning = beat.wake(at(f"2026-11-10T{clock}"))
    assert planning["at"] == at(f"2026-11-10T{clock}")
    planning["planned_s"] = planned_s
    beat.write()
    assert codes(said(tmp_path, WINDOW)) == expected


def test_what_keeps_one_beat_is_no_excuse_of_another(tmp_path: Path) -> None:
    stall = at("2026-11-10T16:50"), at("2026-11-10T17:30")
    # The one that is stuck sends nothing of it; the other one sends it late, and was asleep until then.
    times = without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T17:00")
    Beat(tmp_path).live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": times}, stall)
    start = at("2026-11-10T16:40")
    late = [at("2026-11-10T17:30")]
    Beat(tmp_path, "beat-2").live(start, at("2026-11-10T17:40"), {"it": HOURLY}, {"it": late})
    assert codes(said(tmp_path)) == ["tick-late"]


def test_a_tick_that_no_beat_sent_is_missing_if_one_of_them_was_not_kept(tmp_path: Path) -> None:
    times = without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T17:00")
    stall = at("2026-11-10T16:50"), at("2026-11-10T18:00") - 5.0
    Beat(tmp_path).live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": times}, stall)
    Beat(tmp_path, "beat-2").live(at("2026-11-10T16:40"), at("2026-11-10T17:40"), {"it": HOURLY}, {"it": []})
    assert codes(said(tmp_path)) == ["tick-missing"]


def test_a_tick_that_was_due_in_the_moment_that_a_kept_beat_was_ready_proves_nothing(tmp_path: Path) -> None:
    times = every(HOUR, SIX, NEXT_NOON)
    ticks = lived(tmp_path, FIVE, NEXT_NOON, HOURLY, times, (FIVE - 60.0, SIX - 5.0))
    assert codes(ticks) == ["ticks-stalled"]
    assert only(ticks).unproven.first == ("2026-11-10T17:00+01:00",)


def test_a_tick_is_missing_if_a_beat_that_was_not_kept_looked_last_when_it_was_due(tmp_path: Path) -> None:
    times = without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T17:00")
    Beat(tmp_path).live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": times}, (FIVE - 600.0, SIX - 5.0))
    Beat(tmp_path, "beat-2").live(FIVE - 1_200.0, FIVE, {"it": HOURLY}, {"it": []})
    assert codes(said(tmp_path)) == ["tick-missing"]


# ----------------------------------------------------------------------------------------- a deadline of the app's


@pytest.mark.parametrize(
    ("deadline_s", "kept_s", "code"),
    [
        (60, 90.0, "ticks-stalled"),
        # It was not kept for longer, or the app sets no deadline.
        (60, 60.25, "ticks-stalled"),
        (60, 60.0, "tick-missing"),
        (None, 90.0, "tick-missing"),
        (600, 90.0, "tick-missing"),
    ],
)
def test_a_tick_that_beat_was_kept_from_beyond_the_deadline_of_the_app_proves_nothing(
    tmp_path: Path, deadline_s: float | None, kept_s: float, code: str
) -> None:
    times = without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T17:00")
    rule = HOURLY if deadline_s is None else HOURLY | {"deadline_s": deadline_s}
    due = at("2026-11-10T17:00")
    beat = Beat(tmp_path)
    beat.live(NOON, NEXT_NOON, {"it": rule}, {"it": times})
    # It meant to wake at that time, and woke later.
    before = [line for line in beat.lines if line["kind"] == "woke" and line["at"] < due][-1]
    before["next"] = due - 0.01
    after = beat.wake(due)
    beat.lines = [
        line for line in beat.lines if line is after or not (line["kind"] == "woke" and due <= line["at"] < due + 300.0)
    ]
    after |= {"at": due + kept_s - 0.5, "took_s": 0.5, "next": due + 300.0}
    beat.write()
    (finding,) = said(tmp_path, WINDOW).findings
    assert finding.code == code
    assert ("`beat_cron_starting_deadline`" in finding.text) is (code == "ticks-stalled")
    assert ("lower --speed" in finding.text) is (code == "ticks-stalled")


def test_a_tick_is_missing_if_one_of_the_beats_that_had_it_was_not_kept_beyond_the_deadline(tmp_path: Path) -> None:
    times = without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T17:00")
    rule = HOURLY | {"deadline_s": 60}
    stall = FIVE - 60.0, FIVE + 300.0
    Beat(tmp_path).live(NOON, NEXT_NOON, {"it": rule}, {"it": times}, stall)
    assert codes(said(tmp_path)) == ["ticks-stalled"]
    Beat(tmp_path, "beat-2").live(FIVE - 1_200.0, FIVE + 1_200.0, {"it": rule}, {"it": []})
    assert codes(said(tmp_path)) == ["tick-missing"]


@pytest.mark.parametrize(("count", "more"), [(12, " and 2 more entries"), (10, "")])
def test_of_many_entries_that_beat_was_kept_from_some_are_named(tmp_path: Path, count: int, more: str) -> None:
    times = without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T17:00")
    names = [f"it-{number:02}" for number in range(count)]
    stall = at("2026-11-10T16:50"), at("2026-11-10T18:00") - 5.0
    Beat(tmp_path).live(NOON, NEXT_NOON, dict.fromkeys(names, HOURLY), dict.fromkeys(names, times), stall)
    (finding,) = said(tmp_path).findings
    assert (finding.code, finding.count) == ("ticks-stalled", count)
    assert f"it-09: 2026-11-10T17:00+01:00{more} (due" in finding.text


@pytest.mark.parametrize(("window", "unproven"), [(WINDOW, ("2026-11-10T19:00+01:00",)), (None, ())])
def test_one_time_that_beat_was_kept_for_is_no_excuse_twice(
    tmp_path: Path, window: Window | None, unproven: tuple[str, ...]
) -> None:
    # Sending one took until half past six, so that the next was to come at half past seven.
    times = without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T18:00", "2026-11-10T19:00")
    beat = Beat(tmp_path)
    beat.live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": times})
    begin, end = at("2026-11-10T17:00"), at("2026-11-10T18:30")
    beat.lines = [line for line in beat.lines if not (line["kind"] == "woke" and begin < line["at"] < end)]
    _, wake = beat.sent(begin)
    wake["took_s"] = end - begin
    beat.write()
    ticks = said(tmp_path, window)
    missing = ("2026-11-10T18:00+01:00", "2026-11-10T19:00+01:00")
    assert only(ticks).missing.first == tuple(t for t in missing if t not in unproven)
    assert only(ticks).unproven.first == unproven


def test_a_tick_that_is_later_than_beat_was_kept_is_late(tmp_path: Path) -> None:
    stall = at("2026-11-10T16:58"), at("2026-11-10T17:01")
    times = [*without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T17:00"), at("2026-11-10T17:20")]
    assert codes(lived(tmp_path, NOON, NEXT_NOON, HOURLY, times, stall)) == ["tick-late"]


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (["first", "second"], []),
        # From the second one nothing kept it, so that its time had the first one.
        (["first"], ["tick-doubled", "ticks-stalled"]),
        ([], ["tick-missing", "tick-doubled"]),
    ],
)
def test_ticks_that_beat_was_kept_from_until_after_the_next_time_are_neither_missing_nor_doubled(
    tmp_path: Path, kept: list[str], expected: list[str]
) -> None:
    begin, end = at("2026-11-10T12:00:30"), at("2026-11-10T13:00:30")
    # The ticks of ten past, eleven past and twelve past come after eleven past, twelve past, and in time.
    first, second = at("2026-11-10T12:11:10"), at("2026-11-10T12:12:10")
    late = {at("2026-11-10T12:10"): first, at("2026-11-10T12:11"): second, at("2026-11-10T12:12"): second + 20.0}
    times = [late.get(t, t) for t in every(60.0, begin, end)]
    beat = Beat(tmp_path)
    stall = (at("2026-11-10T12:09:30"), first) if "first" in kept else (0.0, 0.0)
    beat.live(begin, end, {"it": crontab("*")}, {"it": times}, stall)
    if "second" in kept:
        # Sending the first of them took until the second.
        _, wake = beat.sent(first)
        wake["took_s"] = second - wake["at"]
        during = [line for line in beat.lines if line["kind"] == "woke" and wake["at"] < line["at"] < second]
        beat.lines = [line for line in beat.lines if line not in during]
        beat.write()
    ticks = said(tmp_path)
    assert codes(ticks) == expected
    assert (only(ticks).expected, only(ticks).sent) == (60, 60)


# ------------------------------------------------------------------------------------------------ more than one beat


def test_a_restart_between_ticks_loses_and_doubles_none(tmp_path: Path) -> None:
    stop, start = at("2026-11-10T17:20"), at("2026-11-10T17:40")
    Beat(tmp_path).live(NOON, stop, {"it": HOURLY}, {"it": every(HOUR, NOON, stop)})
    Beat(tmp_path, pid=2).live(start, NEXT_NOON, {"it": HOURLY}, {"it": every(HOUR, start, NEXT_NOON)})
    ticks = said(tmp_path)
    assert ticks.findings == ()
    assert (only(ticks).expected, only(ticks).sent) == (24, 24)


@pytest.mark.parametrize(
    ("after_s", "failures", "remarks"),
    [([], [], ["ticks-skipped"]), ([0.5], [], ["ticks-skipped"]), ([0.5, 1.5], ["tick-doubled"], ["ticks-skipped"])],
)
def test_what_was_due_while_no_beat_was_there_may_be_made_up_for_once(
    tmp_path: Path, after_s: list[float], failures: list[str], remarks: list[str]
) -> None:
    stop, start = at("2026-11-10T16:20"), at("2026-11-10T18:40")
    Beat(tmp_path).live(NOON, stop, {"it": HOURLY}, {"it": every(HOUR, NOON, stop)})
    times = [*(start + s for s in after_s), *every(HOUR, start, NEXT_NOON)]
    Beat(tmp_path, pid=2).live(start, NEXT_NOON, {"it": HOURLY}, {"it": times})
    ticks = said(tmp_path)
    assert codes(ticks) == failures
    assert codes(ticks, Verdict.PASS) == remarks


def test_what_was_due_in_each_time_without_beat_is_named(tmp_path: Path) -> None:
    times = [at(f"2026-11-10T{clock}") for clock in ("12:10", "14:20", "15:40", "17:20", "18:40", "20:20")]
    for number, (begin, end) in enumerate(zip(times[::2], times[1::2], strict=True), start=1):
        Beat(tmp_path, pid=number).live(begin, end, {"it": HOURLY}, {"it": every(HOUR, begin, end)})
    (skipped,) = said(tmp_path).findings
    assert (skipped.code, skipped.count) == ("ticks-skipped", 2)
    assert "2026-11-10T15:00+01:00, 2026-11-10T18:00+01:00" in skipped.text


def test_a_tick_that_is_repeated_after_a_restart_is_doubled(tmp_path: Path) -> None:
    stop, start = at("2026-11-10T17:02"), at("2026-11-10T17:05")
    Beat(tmp_path).live(NOON, stop, {"it": HOURLY}, {"it": every(HOUR, NOON, stop)})
    times = [start + 1.0, *every(HOUR, start, NEXT_NOON)]
    Beat(tmp_path, pid=2).live(start, NEXT_NOON, {"it": HOURLY}, {"it": times})
    assert codes(said(tmp_path)) == ["tick-doubled"]
    assert only(said(tmp_path)).doubled.first == ("2026-11-10T17:00+01:00",)


def test_two_beats_at_once_double_every_tick(tmp_path: Path) -> None:
    for name in ("beat-1", "beat-2"):
        Beat(tmp_path, name).live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": every(HOUR, NOON, NEXT_NOON)})
    ticks = said(tmp_path)
    assert codes(ticks) == ["tick-doubled"]
    assert only(ticks).doubled.count == 24


def test_a_tick_that_one_beat_sends_in_time_and_another_late_is_not_late(tmp_path: Path) -> None:
    times = every(HOUR, NOON, NEXT_NOON)
    Beat(tmp_path, "beat-1").live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": [t + 70.0 for t in times]})
    Beat(tmp_path, "beat-2").live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": times})
    ticks = said(tmp_path)
    assert codes(ticks) == ["tick-doubled"]
    assert only(ticks).lateness_s["max"] == pytest.approx(0.001, abs=1e-3)


def test_a_first_tick_that_is_doubled_is_not_taken_for_one_that_was_due_before_the_start(tmp_path: Path) -> None:
    begin, end = at("2026-11-10T11:59:50"), at("2026-11-10T12:00:30")
    first = at("2026-11-10T12:00")
    ticks = lived(tmp_path, begin, end, crontab("*"), [first, first + 9.0])
    assert codes(ticks) == ["tick-doubled"]
    assert only(ticks).doubled.first == ("2026-11-10T12:00+01:00",)


def test_an_entry_whose_rule_was_changed_at_a_restart_is_accounted_for_by_both(tmp_path: Path) -> None:
    stop, start = at("2026-11-10T17:20"), at("2026-11-10T17:40")
    Beat(tmp_path).live(NOON, stop, {"it": HOURLY}, {"it": every(HOUR, NOON, stop)})
    Beat(tmp_path, pid=2).live(
        start, NEXT_NOON, {"it": interval(HOUR)}, {"it": [start + HOUR * n for n in range(1, 19)]}
    )
    ticks = said(tmp_path)
    assert ticks.findings == ()
    assert sorted(entry.sent for entry in ticks.entries) == [5, 18]


# --------------------------------------------------------------------------------------------------------- intervals


def steps(step_s: float, count: int, begin: float = NOON) -> list[float]:
    return [begin + step_s * number for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda times: times, []),
        (lambda times: [t + 4.0 * number for number, t in enumerate(times)], []),
        (lambda times: [*times[:40], *times[41:]], ["tick-missing"]),
        (lambda times: times[:-3], ["tick-missing"]),
        (lambda times: times[3:], ["tick-missing"]),
        (lambda times: [*times[:40], *(t - 5.0 for t in times[40:])], ["tick-early"]),
        (lambda _: [], ["tick-missing"]),
    ],
)  # fmt: skip
def test_an_interval_is_counted_from_the_last_actual_tick(tmp_path: Path, change: Any, expected: list[str]) -> None:
    ticks = lived(tmp_path, NOON, NEXT_NOON - 10.0, interval(600.0), change(steps(600.0, 143)))
    assert codes(ticks) == expected
    # One that came too early was not due.
    assert only(ticks).expected == 143 - len(only(ticks).early.first)


def test_an_interval_is_as_late_as_it_comes_after_its_time(tmp_path: Path) -> None:
    times = [NOON + 604.0003 * number for number in range(1, 20)]
    # The first one is a millisecond later, because beat takes as long to send.
    assert only(lived(tmp_path, NOON, times[-1] + 1.0, interval(600.0), times)).lateness_s == {
        "p50": 4.0,
        "p99": 4.001,
        "max": 4.001,
    }


@pytest.mark.parametrize(("waited_s", "expected"), [(600.9, []), (602.0, ["tick-missing"])])
def test_the_last_tick_of_an_interval_has_a_second_to_come(
    tmp_path: Path, waited_s: float, expected: list[str]
) -> None:
    times = steps(600.0, 10)
    ticks = lived(tmp_path, NOON, times[-1] + waited_s, interval(600.0), times)
    assert codes(ticks) == expected
    # What has no zone of its own is shown in beat's.
    assert only(ticks).missing.first == ("2026-11-10T14:00:00+01:00",)[: len(expected)]


def test_the_tick_of_an_interval_in_the_moment_that_beat_was_ready_counts_as_one_in_time(tmp_path: Path) -> None:
    # It was due before, when no beat was there.
    ticks = exact(tmp_path, interval(HOUR), [(-600.0, 0.5, 300.0), (300.0, 0.5, 600.0)], -600.0)
    assert ticks.findings == ()
    assert only(ticks).lateness_s == {"p50": 0.0, "p99": 0.0, "max": 0.0}


def test_a_late_tick_of_an_interval_in_the_moment_that_beat_looked_last_is_not_missing(tmp_path: Path) -> None:
    ticks = exact(tmp_path, interval(600.0), [(-600.0, 0.5, 0.0), (0.0, 0.5, 600.0), (800.0, 0.5, 1_400.0)], 0.0, 800.0)
    assert ticks.findings == ()
    assert (only(ticks).expected, only(ticks).lateness_s["max"]) == (2, 200.0)


@pytest.mark.parametrize(("more_s", "expected"), [(0.0, []), (-0.001, ["tick-early"])])
def test_an_interval_may_be_a_hundredth_of_a_second_short(tmp_path: Path, more_s: float, expected: list[str]) -> None:
    second = FIVE + 600.0 - 0.01 - FIVE + more_s
    ticks = exact(tmp_path, interval(600.0), [(0.0, 0.5, 599.0), (599.0, 2.0, 1_201.0)], 0.0, second)
    assert codes(ticks) == expected


@pytest.mark.parametrize(("lead_s", "expected"), [(0.005, []), (1.0, ["tick-doubled"])])
def test_an_interval_is_counted_from_a_little_before_a_tick_of_which_nothing_else_is_known(
    tmp_path: Path, lead_s: float, expected: list[str]
) -> None:
    times = steps(600.0, 10)
    beat = Beat(tmp_path)
    beat.live(NOON, times[4] + 1.0, {"it": interval(600.0)}, {"it": times[:5]})
    beat.die()
    later = [t - lead_s for t in times[5:]]
    Beat(tmp_path, pid=2).live(times[4] + 2.0, times[-1], {"it": interval(600.0)}, {"it": later})
    assert codes(said(tmp_path)) == expected


@pytest.mark.parametrize(("begin_s", "end_s"), [(10.0, 550.0), (650.0, 700.0)])
def test_an_interval_that_beat_was_kept_from_at_another_time_or_for_less_is_missing(
    tmp_path: Path, begin_s: float, end_s: float
) -> None:
    times = steps(600.0, 143)
    gone = times.pop(40)
    stall = gone - 600.0 + begin_s, gone - 600.0 + end_s
    ticks = lived(tmp_path, NOON, NEXT_NOON - 10.0, interval(600.0), times, stall)
    assert codes(ticks) == ["tick-missing"]
    assert only(ticks).missing.count == 1


def test_an_interval_that_beat_was_kept_from_proves_nothing(tmp_path: Path) -> None:
    times = steps(600.0, 40) + [t + 1_500.0 for t in steps(600.0, 101, NOON + 600.0 * 40)]
    stall = NOON + 600.0 * 40 + 300.0, times[40] - 5.0
    assert codes(lived(tmp_path, NOON, NEXT_NOON, interval(600.0), times, stall)) == ["ticks-stalled"]


def test_two_beats_at_once_double_an_interval(tmp_path: Path) -> None:
    for name, off_s in (("beat-1", 0.0), ("beat-2", 200.0)):
        times = steps(600.0, 100, NOON + off_s)
        Beat(tmp_path, name).live(NOON + off_s, times[-1] + 1.0, {"it": interval(600.0)}, {"it": times})
    ticks = said(tmp_path)
    assert codes(ticks) == ["tick-doubled"]
    assert only(ticks).doubled.count == 100


@pytest.mark.parametrize(("relative", "expected"), [(True, []), (False, ["tick-early"])])
def test_a_rounded_interval_may_end_early(tmp_path: Path, *, relative: bool, expected: list[str]) -> None:
    times = [at("2026-11-10T13:05"), *every(HOUR, at("2026-11-10T13:30"), NEXT_NOON)]
    ticks = lived(tmp_path, NOON, NEXT_NOON, interval(HOUR, relative=relative), times)
    assert codes(ticks) == expected
    assert only(ticks).rule == ("every 3600 s, rounded" if relative else "every 3600 s")


def test_an_interval_that_is_rounded_to_days_may_end_most_of_a_day_early(tmp_path: Path) -> None:
    times = [at("2026-11-11T09:00"), at("2026-11-12T00:00")]
    assert codes(lived(tmp_path, NOON, times[-1] + HOUR, interval(DAY, relative=True), times)) == []


def test_an_interval_goes_on_after_a_restart_from_its_last_tick_or_from_the_start(tmp_path: Path) -> None:
    stop, start = NOON + 2_000.0, NOON + 2_300.0
    Beat(tmp_path).live(NOON, stop, {"it": interval(600.0)}, {"it": steps(600.0, 3)})
    Beat(tmp_path, pid=2).live(start, start + 5_000.0, {"it": interval(600.0)}, {"it": steps(600.0, 8, start)})
    assert said(tmp_path).findings == ()
    Beat(tmp_path, pid=2).live(start, start + 5_000.0, {"it": interval(600.0)}, {"it": steps(600.0, 9, NOON + 1_800.0)})
    assert said(tmp_path).findings == ()


# ------------------------------------------------------------------------------------------------- what Celery writes

MONTH = at("2026-11-01T00:10"), at("2026-12-01T00:10")


@pytest.mark.parametrize(
    ("fields", "days"),
    [
        # Celery wants both a day of the month and one of the week; November 2026 begins on a Sunday.
        (("0", "8", "1-7", "*", "mon"), [2]),
        (("0", "8", "1-7, 15-21", "*", "monday,sunday"), [1, 2, 15, 16]),
        (("0", "8", "*", "*", "friday"), [6, 13, 20, 27]),
        (("0", "8", "*", "november", "5-0"), [1, 6, 7, 8, 13, 14, 15, 20, 21, 22, 27, 28, 29]),
        (("0", "8", "*", "*", "fri-sun/2"), [1, 6, 8, 13, 15, 20, 22, 27, 29]),
        (("0", "8", "13", "*", "*"), [13]),
        (("0", "8", "*", "Nov", "MON"), [2, 9, 16, 23, 30]),
        (("0", "8", "*/10", "nov-dec", "*"), [1, 11, 21]),
        (("0", "8", "28-2", "10-1", "*"), [1, 2, 28, 29, 30]),
        (("0", "8", "*", "12", "*"), []),
    ],
)
def test_the_days_are_those_that_celery_means(tmp_path: Path, fields: tuple[str, ...], days: list[int]) -> None:
    times = [at(f"2026-11-{day:02}T08:00") for day in days]
    ticks = lived(tmp_path, *MONTH, crontab(*fields), times)
    assert codes(ticks) == []
    assert (only(ticks).expected, only(ticks).sent) == (len(days), len(days))


def test_minutes_that_wrap_around_the_hour_are_understood(tmp_path: Path) -> None:
    times = [t for t in every(60.0, NOON, NOON + 2 * HOUR) if (t // 60.0) % 60.0 in {0.0, 1.0, 58.0, 59.0}]
    ticks = lived(tmp_path, NOON, NOON + 2 * HOUR, crontab("58-1"), times)
    assert ticks.findings == ()
    assert only(ticks).expected == 8


def test_hours_that_wrap_around_midnight_are_understood(tmp_path: Path) -> None:
    times = [at(f"2026-11-{day}T{hour}:00") for day, hour in ((10, 22), (10, 23), (11, "00"), (11, "01"))]
    ticks = lived(tmp_path, NOON, NEXT_NOON, crontab("0", "22-1"), times)
    assert ticks.findings == ()


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "other", "text": "<solar: sunset at latitude 52, longitude: 13>"},
        crontab("0", timezone="Mars/Olympus"),
        crontab("0", "every"),
        crontab("0", "24"),
        crontab("0", "8", "*", "*", "8"),
    ],
)
def test_an_entry_that_cannot_be_calculated_is_not_passed_over_in_silence(tmp_path: Path, rule: dict[str, Any]) -> None:
    Beat(tmp_path).live(NOON, NEXT_NOON, {"it": rule, "ok": HOURLY}, {"it": [NOON], "ok": every(HOUR, NOON, NEXT_NOON)})
    ticks = said(tmp_path)
    assert codes(ticks, *Verdict) == ["tick-unpredictable"]
    assert ticks.findings[0].count == 1
    assert "it was sent 1 times" in ticks.findings[0].text
    assert [entry.expected for entry in ticks.entries] == [None, 24]


def test_an_entry_that_beat_never_spoke_of_is_not_passed_over_either(tmp_path: Path) -> None:
    Beat(tmp_path).live(NOON, NEXT_NOON, {}, {"new": [NOON]})
    ticks = said(tmp_path)
    assert codes(ticks, *Verdict) == ["tick-unpredictable", "nothing-ticked"]
    # That a rule cannot be calculated is known; that there was one is not.
    assert codes(ticks) == ["tick-unpredictable"]
    assert "in no schedule that beat spoke of" in ticks.findings[0].text


# ------------------------------------------------------------------------------------------------------- the witness


def test_no_beat_is_nothing_to_say(tmp_path: Path) -> None:
    (tmp_path / "worker-1.1.1.jsonl").write_text('{"n":0,"t":0,"kind":"opened","node":"worker-1","role":"worker"}\n')
    assert account(tmp_path) is None


def test_a_timelapse_without_beat_is_unknown(tmp_path: Path) -> None:
    ticks = said(tmp_path, Window(begin_t=NOON, end_t=NEXT_NOON))
    assert codes(ticks) == ["ticks-unwatched"]


def test_a_timelapse_of_which_beat_saw_only_a_part_is_unknown(tmp_path: Path) -> None:
    Beat(tmp_path).live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": every(HOUR, NOON, NEXT_NOON)})
    assert codes(said(tmp_path, Window(begin_t=NOON, end_t=NEXT_NOON - 1.0))) == []
    assert codes(said(tmp_path, Window(begin_t=NOON - HOUR, end_t=NEXT_NOON))) == ["ticks-unwatched"]
    (finding,) = said(tmp_path, Window(begin_t=NOON, end_t=NEXT_NOON + HOUR)).findings
    assert (finding.code, finding.count) == ("ticks-unwatched", 1)


def test_a_timelapse_of_which_beat_saw_just_the_whole_is_judged(tmp_path: Path) -> None:
    Beat(tmp_path).live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": every(HOUR, NOON, NEXT_NOON)})
    window = Window(begin_t=NOON, end_t=NEXT_NOON)
    assert codes(said(tmp_path, window)) == []
    # Another beat was there before.
    Beat(tmp_path, pid=2).live(NOON - HOUR, NOON - 900.0, {"it": HOURLY}, {"it": [at("2026-11-10T12:00")]})
    assert codes(said(tmp_path, window)) == []


def test_a_timelapse_in_which_nothing_was_due_is_unknown(tmp_path: Path) -> None:
    Beat(tmp_path).live(NOON, NEXT_NOON, {"it": AT_HALF_PAST_TWO}, {"it": [at("2026-11-11T02:30")]})
    ticks = said(tmp_path, Window(begin_t=NOON, end_t=NOON + HOUR))
    assert [(finding.code, finding.count) for finding in ticks.findings] == [("nothing-ticked", 0)]


def test_what_lies_outside_of_a_timelapse_does_not_count(tmp_path: Path) -> None:
    times = without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T14:00", "2026-11-11T11:00")
    Beat(tmp_path).live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": [*times, at("2026-11-10T15:00") + 1.0]})
    ticks = said(tmp_path, Window(begin_t=at("2026-11-10T16:00"), end_t=at("2026-11-11T11:00")))
    assert ticks.findings == ()
    assert (only(ticks).expected, only(ticks).sent) == (19, 19)
    assert sorted(codes(said(tmp_path))) == ["tick-doubled", "tick-missing"]


def test_a_tick_that_the_broker_never_took_makes_a_timelapse_unknown(tmp_path: Path) -> None:
    path = Beat(tmp_path).live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": every(HOUR, NOON, NEXT_NOON)})
    window = Window(begin_t=NOON, end_t=NEXT_NOON - 1.0)
    lines = path.read_text().splitlines(keepends=True)
    number = next(number for number, line in enumerate(lines) if '"accepted"' in line)
    lines[number] = lines[number].replace('"accepted"', '"received"')
    path.write_text("".join(lines))
    ticks = said(tmp_path, window)
    assert codes(ticks) == ["ticks-unsent"]
    assert ticks.findings[0].count == 1
    path.write_text("".join(lines).replace('"accepted"', '"received"'))
    # Of the last one it may not have lived to say more.
    assert said(tmp_path, window).findings[0].count == 23


def test_a_last_tick_that_beat_did_not_live_to_say_more_of_is_none_that_the_broker_never_took(tmp_path: Path) -> None:
    beat = Beat(tmp_path)
    beat.live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": every(HOUR, NOON, NEXT_NOON)})
    beat.die()
    del beat.lines[-1]
    beat.write()
    assert codes(said(tmp_path, Window(begin_t=NOON, end_t=at("2026-11-11T11:30")))) == []


def test_a_journal_that_cannot_be_read_is_unknown_if_it_is_of_beat(tmp_path: Path) -> None:
    (tmp_path / "worker-1.1.1.jsonl").mkdir()
    assert account(tmp_path) is None
    (tmp_path / "beat-1.1.1.jsonl").mkdir()
    assert "ticks-unwitnessed" in codes(said(tmp_path))


@pytest.mark.parametrize("content", [None, '{"n":0,"t":0,"kind":"unsent","task":null}\n'])
def test_after_a_journal_that_cannot_be_read_the_others_are_read(tmp_path: Path, content: str | None) -> None:
    spoilt = tmp_path / "beat-0.1.1.jsonl"
    if content is None:
        spoilt.mkdir()
    else:
        spoilt.write_text(content)
    Beat(tmp_path).live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": every(HOUR, NOON, NEXT_NOON)})
    ticks = said(tmp_path)
    assert codes(ticks) == ["ticks-unwitnessed"]
    assert only(ticks).sent == 24


@pytest.mark.parametrize(("nap_s", "slept"), [(0.001, False), (0.002, True)])
def test_beat_sleeps_only_where_it_means_to_for_more_than_a_millisecond(nap_s: float, *, slept: bool) -> None:
    assert Wake(at=0.0, end=0.0, next=nap_s).slept is slept


def test_what_beat_did_before_it_said_that_it_was_ready_is_a_time_of_its_own(tmp_path: Path) -> None:
    beat = Beat(tmp_path)
    beat.open()
    beat.say("woke", at=40.0, took_s=10.0, next=200.0)
    beat.say("ready", at=100.0)
    beat.say("woke", at=200.0, took_s=5.0, next=300.0)
    beat.write()
    (start,), _ = beat_log.read(tmp_path)
    assert list(start.busy) == [(40.0, 50.0), (200.0, 205.0)]


def test_stretches_of_time_that_touch_are_one() -> None:
    spans = Spans([(20.0, 30.0), (0.0, 10.0), (1.0, 2.0), (30.0, 40.0)])
    assert list(spans) == [(0.0, 10.0), (20.0, 40.0)]
    assert [spans.around(t) for t in (-1.0, 5.0, 15.0, 40.0)] == [None, (0.0, 10.0), None, (20.0, 40.0)]
    assert [spans.length_s(*part) for part in ((-1.0, 50.0), (5.0, 25.0), (11.0, 19.0))] == [30.0, 10.0, 0.0]


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        ("gap", " lacks lines (1)"),
        ("torn", " lacks lines (1)"),
        ("gap and torn", " lacks lines (2)"),
        ("damaged", " lacks lines (1)"),
        ("last", " lacks lines (1)"),
        ("first", " lacks lines (1)"),
        ("other", " is not what beat writes (KeyError('took_s'))"),
    ],
)
def test_a_journal_that_is_not_whole_is_unknown(tmp_path: Path, spoil: str, why: str) -> None:
    path = Beat(tmp_path).live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": every(HOUR, NOON, NEXT_NOON)})
    lines = path.read_text().splitlines(keepends=True)
    if "gap" in spoil:
        del lines[-3]
    if "torn" in spoil:
        lines[-1] = lines[-1][:-5]
    if spoil == "other":
        lines[-1] = lines[-1].replace("took_s", "took")
    elif spoil in {"damaged", "last", "first"}:
        lines[{"first": 0, "last": -1}.get(spoil, -2)] = "{\n"
    path.write_text("".join(lines))
    ticks = said(tmp_path)
    assert codes(ticks) == ["ticks-unwitnessed"]
    assert f"{path.name}{why}." in ticks.findings[0].text


@pytest.mark.parametrize(("lost", "verdict"), [(True, Verdict.UNKNOWN), (False, Verdict.FAIL)])
def test_a_tick_that_may_stand_in_a_lost_line_is_not_called_missing_for_sure(
    tmp_path: Path, *, lost: bool, verdict: Verdict
) -> None:
    times = every(HOUR, NOON, NEXT_NOON)
    if lost:
        path = Beat(tmp_path).live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": times})
        lines = path.read_text().splitlines(keepends=True)
        lines.remove(next(line for line in lines if '"intended"' in line))
        path.write_text("".join(lines))
    else:
        Beat(tmp_path).live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": times[1:]})
    assert [finding.verdict for finding in said(tmp_path).findings if finding.code == "tick-missing"] == [verdict]


def test_a_beat_that_was_never_ready_is_unknown(tmp_path: Path) -> None:
    line = {"n": 0, "t": 0.0, "kind": "opened", "node": "beat-1", "pid": 1, "role": "beat"}
    path = tmp_path / "beat-1.1.1.jsonl"
    path.write_text(json.dumps(line) + "\n")
    assert codes(said(tmp_path)) == ["ticks-unwatched"]
    # A beat of its own says what its schedule is before it is ready.
    settings = {"n": 1, "t": 0.0, "kind": "settings", "timezone": "UTC", "at": NOON, "schedule": []}
    path.write_text(f"{json.dumps(line)}\n{json.dumps(settings)}\n")
    assert codes(said(tmp_path)) == ["ticks-unwatched"]


# --------------------------------------------------------------------------------------------------------- the audit


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder.create(tmp_path, "lapse")
    times = without(every(HOUR, NOON, NEXT_NOON), "2026-11-10T17:00")
    rules = {"it": HOURLY, "[other]": {"kind": "other", "text": "[sun]"}}
    Beat(folder.journal).live(NOON, NEXT_NOON, rules, {"it": times})
    lapse = {"from_t": NOON, "to_t": NEXT_NOON - 1.0, "tz": "Europe/Berlin", "speed": 1800.0}
    folder.write("run.json", {"name": "lapse", "promise": Promise().to_json(), "nodes": ["beat-1"], "timelapse": lapse})
    return folder


def test_the_audit_of_a_timelapse_is_about_ticks_alone_and_can_be_written_and_read(folder: RunFolder) -> None:
    audited = audit(folder)
    assert audited.is_timelapse
    assert (audited.entries, set(audited.fates.values())) == (0, {0})
    assert [finding.code for finding in audited.findings] == ["tick-unpredictable", "tick-missing"]
    assert audited.verdict is Verdict.FAIL
    written = json.loads(json.dumps(audited.to_json()))
    assert Audit.from_json(written) == audited


def test_the_audit_of_any_other_run_has_them_too(folder: RunFolder) -> None:
    folder.write("run.json", {name: value for name, value in folder.read("run.json").items() if name != "timelapse"})
    audited = audit(folder)
    assert not audited.is_timelapse
    assert "tick-missing" in [finding.code for finding in audited.findings]
    rows = [str(cell) for cell in terminal.accounting(audited).columns[0].cells]
    assert "ticks of it" in rows


def test_the_table_names_each_entry(folder: RunFolder) -> None:
    table = terminal.ticks(audit(folder))
    assert [str(cell) for cell in table.columns[0].cells] == ["[other]\n  [sun]", "it\n  0 * * * * Europe/Berlin"]
    assert [str(cell) for cell in table.columns[1].cells] == ["?", "24"]
