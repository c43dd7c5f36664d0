"""What is read of beat: beats in workers, schedules that change, entries that cannot be sent, and beats that die."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from inspect import Parameter, signature
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness.audit.beat import beat_history, beat_log, tick_records
from harness.audit.beat.tick_records import EntryTicks, Ticks, Window
from harness.audit.beat.tick_rules import account
from harness.audit.run_folder import RunFolder
from harness.records.verdict import Verdict
from tests.fakes.world import World
from tests.unit.audit.beat_journal import DAY, HOUR, Beat, at, crontab, every, interval

HOURLY = crontab("0")
NOON, NEXT_NOON = at("2026-11-10T12:10"), at("2026-11-11T12:10")
FOUR = at("2026-11-10T16:00")
BORN = 1_795_000_000_000_000_000
"""When the first journal was opened, in nanoseconds."""


def said(folder: Path, window: Window | None = None) -> Ticks:
    ticks = account(folder, window)
    assert ticks is not None
    return ticks


def codes(ticks: Ticks, *verdicts: Verdict) -> list[str]:
    wanted = verdicts or (Verdict.FAIL, Verdict.UNKNOWN)
    return [finding.code for finding in ticks.findings if finding.verdict in wanted]


def text(ticks: Ticks, code: str) -> str:
    (finding,) = [finding for finding in ticks.findings if finding.code == code]
    return finding.text


def only(ticks: Ticks) -> EntryTicks:
    (entry,) = ticks.entries
    return entry


# ------------------------------------------------------------------------------------------------- beats in workers


def worker(
    folder: Path, name: str = "worker-1", pid: int = 7, born: int = BORN, received: Sequence[float] = ()
) -> Path:
    """Write the journal of a worker itself, which took tasks at some times and then left."""
    lines: list[dict[str, Any]] = [
        {"t": 0.0, "kind": "opened", "node": name, "pid": pid, "role": "worker", "format": 1},
        {"t": 0.0, "kind": "up", "argv": ["worker", "--beat"]},
        {"t": 0.0, "kind": "settings", "concurrency": 1},
        {"t": 0.0, "kind": "ready"},
        *({"t": t, "kind": "received", "task": f"{name}-{t}", "name": "tick"} for t in received),
        {"t": NEXT_NOON + DAY, "kind": "finished", "task": "t", "state": "SUCCESS", "error": '"received"'},
        {"t": NEXT_NOON + DAY, "kind": "down"},
    ]
    path = folder / f"{name}.{pid}.{born}.jsonl"
    path.write_text("".join(json.dumps({**line, "n": n}, separators=(",", ":")) + "\n" for n, line in enumerate(lines)))
    return path


def embedded(folder: Path, name: str = "worker-1", pid: int = 70, parent: int = 7) -> Beat:
    """Return a beat in a process of a worker."""
    beat = Beat(folder, name, pid=pid, role="worker")
    beat.open()
    beat.say("embedded", parent=parent)
    return beat


def stamp(beat: Beat, born: int = BORN + 1) -> Path:
    """Each line of it is stamped with the time that it is about; its file is as old as that."""
    for line in beat.lines:
        line["t"] = line.get("at", 0.0) + line.get("took_s", 0.0)
    path = beat.write()
    return path.rename(path.with_name(f"{beat.name}.{beat.pid}.{born}.jsonl"))


def test_the_beat_of_a_worker_is_judged_as_one_of_its_own_is(tmp_path: Path) -> None:
    worker(tmp_path)
    times = every(HOUR, NOON, NEXT_NOON)
    embedded(tmp_path).live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": [t for t in times if t != FOUR]})
    ticks = said(tmp_path)
    assert codes(ticks) == ["tick-missing"]
    assert (only(ticks).expected, only(ticks).sent) == (24, 23)


def test_the_beats_of_two_workers_double_each_tick(tmp_path: Path) -> None:
    for name in ("worker-1", "worker-2"):
        worker(tmp_path, name)
        embedded(tmp_path, name).live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": every(HOUR, NOON, NEXT_NOON)})
    ticks = said(tmp_path)
    assert codes(ticks) == ["tick-doubled"]
    assert only(ticks).doubled.count == 24


def test_a_beat_in_a_thread_of_a_worker_is_found_among_what_the_worker_says(tmp_path: Path) -> None:
    beat = Beat(tmp_path, "worker-1", pid=7, role="worker")
    beat.open()
    beat.say("up", argv=["worker", "--beat"])
    beat.say("ready")
    beat.say("embedded", parent=7)
    beat.live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": every(HOUR, NOON, NEXT_NOON)})
    # The worker says when it consumes, which is no word of beat's.
    beat.lines.insert(len(beat.lines) // 2, {"t": 0.0, "kind": "ready"})
    beat.write()
    ticks = said(tmp_path)
    assert ticks.findings == ()
    assert (only(ticks).expected, only(ticks).sent) == (24, 24)


def test_a_worker_without_a_beat_is_none(tmp_path: Path) -> None:
    path = worker(tmp_path, received=[NOON])
    assert account(tmp_path) is None
    path.write_text("")
    assert account(tmp_path) is None


WORDS: Mapping[str, Mapping[str, Any]] = {
    "woke": {"at": NOON, "took_s": 0.1, "next": NOON + 5.0},
    "schedule": {"until": NOON, "at": NOON, "schedule": []},
    "unsent": {"entry": "it", "at": NOON, "reason": "because"},
    "embedded": {"parent": 1},
    "settings": {"timezone": "UTC", "schedule": []},
}


@pytest.mark.parametrize("line", WORDS)
def test_any_word_of_beat_shows_that_it_was_there(tmp_path: Path, line: str) -> None:
    beat = Beat(tmp_path, "worker-1", role="worker")
    beat.open()
    beat.say(line, **WORDS[line])
    beat.write()
    assert [start.node for start in beat_log.read(tmp_path)[0]] == ["worker-1"]


@pytest.fixture
def read_by_audit(monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], set[str]]:
    """Return the beats that an audit sees, and the files that it does not search for them."""
    nodes: list[str] = []
    passed: set[str] = set()
    read = beat_log.read

    def seen(journal: Path, without_beat: Collection[Path]) -> tuple[list[beat_history.Start], list[str]]:
        passed.update(path.name for path in without_beat)
        starts, faults = read(journal, without_beat)
        nodes.extend(start.node for start in starts)
        return starts, faults

    monkeypatch.setattr(beat_log, "read", seen)
    return nodes, passed


@pytest.mark.parametrize("spoil", ["", "torn", "damaged", "doubled", "first lost"])
@pytest.mark.parametrize("line", WORDS)
def test_an_audit_looks_for_beat_wherever_a_line_may_be_of_it(
    tmp_path: Path, read_by_audit: tuple[list[str], set[str]], line: str, spoil: str
) -> None:
    world = World(RunFolder.create(tmp_path, "run"), nodes=["producer"])
    world.fine("a")
    beat = Beat(world.folder.journal, "worker-2", role="worker")
    beat.open()
    beat.say("received", task="a", name="mail")
    beat.say(line, **WORDS[line])
    path = beat.write()
    lines = path.read_text().splitlines(keepends=True)
    if spoil == "torn":
        lines[-1] = lines[-1].removesuffix("\n")
    elif spoil == "damaged":
        lines[1] = "{\n"
    elif spoil == "doubled":
        lines.append(lines[-1])
    elif spoil == "first lost":
        del lines[0]
    path.write_text("".join(lines))
    world.audit()
    nodes, passed = read_by_audit
    assert nodes == ["worker-2"]
    assert passed == {"producer.1.1.jsonl", "worker-1.1.1.jsonl"}


def test_an_audit_knows_of_a_whole_file_without_a_word_of_beat(
    tmp_path: Path, read_by_audit: tuple[list[str], set[str]]
) -> None:
    world = World(RunFolder.create(tmp_path, "run"))
    world.fine("a")
    world.say("worker-1", "settings", concurrency=1)
    world.audit()
    assert read_by_audit == ([], {"producer.1.1.jsonl"})


def test_the_beat_of_a_worker_that_does_not_say_when_it_began_is_there_from_when_it_woke(tmp_path: Path) -> None:
    beat = embedded(tmp_path)
    beat.live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": every(HOUR, NOON, NEXT_NOON)})
    del next(line for line in beat.lines if line["kind"] == "settings")["at"]
    beat.write()
    (start,), _ = beat_log.read(tmp_path)
    assert (start.ready_at, start.is_embedded) == (NOON, True)
    assert said(tmp_path).findings == ()


def test_the_beat_of_a_worker_is_there_from_when_it_says_that_it_began(tmp_path: Path) -> None:
    beat = embedded(tmp_path)
    beat.live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": every(HOUR, NOON, NEXT_NOON)})
    beat.lines = [line for line in beat.lines if not (line["kind"] == "woke" and line["at"] < NOON + 60.0)]
    beat.write()
    (start,), _ = beat_log.read(tmp_path)
    assert start.ready_at == NOON


# -------------------------------------------------------------------------------------------------- beats that die


def test_a_beat_that_ends_with_an_error_is_found_and_says_which(tmp_path: Path) -> None:
    worker(tmp_path)
    beat = embedded(tmp_path)
    beat.say("died", error="OSError: [Errno 30] Read-only file system: 'celerybeat-schedule'")
    beat.write()
    ticks = said(tmp_path)
    assert codes(ticks) == ["beat-died"]
    assert text(ticks, "beat-died") == (
        "the beat of worker-1 ended with an error, so that nothing more of its schedule was sent: "
        "OSError: [Errno 30] Read-only file system: 'celerybeat-schedule'"
    )


@pytest.mark.parametrize("error", ["ValueError: no", None])
def test_each_beat_that_dies_is_one_finding(tmp_path: Path, error: str | None) -> None:
    for name in ("worker-1", "worker-2"):
        worker(tmp_path, name, received=[NOON + 60.0])
        beat = embedded(tmp_path, name)
        beat.lines[-1]["at"] = NOON
        if error is not None:
            beat.say("died", error=error)
        stamp(beat)
    findings = said(tmp_path).findings
    assert [(finding.code, finding.count) for finding in findings] == [("beat-died", 1)] * 2


def test_a_beat_of_its_own_that_ends_with_an_error_is_found_too(tmp_path: Path) -> None:
    beat = Beat(tmp_path)
    beat.live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": every(HOUR, NOON, NEXT_NOON)})
    beat.say("died", error="ValueError: no")
    beat.write()
    assert codes(said(tmp_path)) == ["beat-died"]
    assert text(said(tmp_path), "beat-died").startswith("beat-1 ended with an error")


@pytest.mark.parametrize(
    ("last_s", "expected"),
    [
        # It meant to wake 300 s after its last word, and is given ten seconds more.
        (309.0, []),
        (311.0, ["beat-died"]),
    ],
)
def test_a_beat_that_falls_silent_while_its_worker_goes_on_is_found(
    tmp_path: Path, last_s: float, expected: list[str]
) -> None:
    end = at("2026-11-10T16:30")
    worker(tmp_path, received=[NOON, end + last_s])
    beat = embedded(tmp_path)
    beat.live(NOON, end, {"it": HOURLY}, {"it": every(HOUR, NOON, end)})
    stamp(beat)
    ticks = said(tmp_path)
    assert codes(ticks) == expected
    if expected:
        assert (
            "worker-1 was not heard of any more, and 11 s later its worker still took tasks" in ticks.findings[0].text
        )


@pytest.mark.parametrize(("last_s", "expected"), [(10.0, ["ticks-unwatched"]), (10.25, ["beat-died"])])
@pytest.mark.parametrize("before", ["", "\n"])
def test_a_beat_that_never_was_ready_though_its_worker_took_tasks_is_found(
    tmp_path: Path, before: str, last_s: float, expected: list[str]
) -> None:
    path = worker(tmp_path, received=[NOON + last_s])
    if before:
        # All that is left of the worker's journal is that it took a task.
        path.write_text(before + next(line for line in path.read_text().splitlines() if '"received"' in line) + "\n")
    beat = embedded(tmp_path)
    beat.lines[-1]["at"] = NOON
    stamp(beat)
    assert codes(said(tmp_path)) == expected


def test_a_beat_in_a_thread_of_which_no_time_is_told_is_not_said_to_have_died(tmp_path: Path) -> None:
    # The line in which it said that it began is lost.
    beat = Beat(tmp_path, "worker-1", pid=7, role="worker")
    beat.open()
    beat.say("settings", timezone="UTC", schedule=[])
    beat.say("received", task="t", name="tick")
    beat.lines[-1]["t"] = NOON
    beat.write()
    assert codes(said(tmp_path)) == ["ticks-unwatched"]


def test_a_beat_of_its_own_lives_in_no_worker(tmp_path: Path) -> None:
    beat = Beat(tmp_path)
    beat.live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": every(HOUR, NOON, NEXT_NOON)})
    beat.say("received", task="t", name="tick")
    beat.lines[-1]["t"] = NEXT_NOON + HOUR
    beat.write()
    assert said(tmp_path).findings == ()


def test_a_beat_that_never_was_ready_is_unknown_where_its_worker_did_nothing_either(tmp_path: Path) -> None:
    worker(tmp_path)
    beat = embedded(tmp_path)
    beat.lines[-1]["at"] = NOON
    stamp(beat)
    ticks = said(tmp_path)
    assert codes(ticks) == ["ticks-unwatched"]
    assert "the beat of worker-1 began, and never said that it was ready" in ticks.findings[0].text


def test_beats_that_never_were_ready_are_unknown_each_for_its_own_reason(tmp_path: Path) -> None:
    embedded(tmp_path).write()
    beat = Beat(tmp_path)
    beat.open()
    beat.write()
    assert [(finding.code, finding.count, finding.text) for finding in said(tmp_path).findings] == [
        ("ticks-unwatched", 1, "no beat ever said that it was ready, so nothing is known about ticks."),
        (
            "ticks-unwatched",
            1,
            "the beat of worker-1 began, and never said that it was ready, so nothing is known about its ticks.",
        ),
    ]


def test_a_worker_that_was_started_again_is_not_the_one_that_its_first_beat_lived_in(tmp_path: Path) -> None:
    end = at("2026-11-10T16:30")
    # Each time it has the same process id, as the first process of a container has.
    worker(tmp_path, born=BORN - 5, received=[NOON])
    worker(tmp_path, born=BORN, received=[end])
    worker(tmp_path, born=BORN + 5, received=[NEXT_NOON])
    beat = embedded(tmp_path)
    beat.live(NOON, end, {"it": HOURLY}, {"it": every(HOUR, NOON, end)})
    stamp(beat, BORN + 1)
    assert codes(said(tmp_path)) == []
    stamp(beat, BORN + 6)
    (tmp_path / f"worker-1.70.{BORN + 1}.jsonl").unlink()
    assert codes(said(tmp_path)) == ["beat-died"]


def test_a_beat_in_a_thread_that_falls_silent_is_found(tmp_path: Path) -> None:
    end = at("2026-11-10T16:30")
    # A worker before it had the same process id.
    worker(tmp_path, pid=7, born=BORN - 5, received=[NOON])
    beat = embedded(tmp_path, pid=7, parent=7)
    beat.live(NOON, end, {"it": HOURLY}, {"it": every(HOUR, NOON, end)})
    stamp(beat)
    beat.say("received", task="t", name="tick")
    beat.lines[-1]["t"] = NEXT_NOON
    beat.write().rename(tmp_path / f"worker-1.7.{BORN + 1}.jsonl")
    assert codes(said(tmp_path)) == ["beat-died"]


# ----------------------------------------------------------------------------------------- schedules that change


def changed(folder: Path, *changes: tuple[float, Mapping[str, Any]], ticks: Mapping[str, Iterable[float]]) -> Ticks:
    """Return the ticks of a beat that begins without entries, and has others from some times on."""
    beat = Beat(folder)
    beat.live(NOON, NEXT_NOON, {}, ticks)
    for t, rules in changes:
        beat.change(t, rules)
    return said(folder)


def test_an_entry_that_is_added_is_judged_from_then_on(tmp_path: Path) -> None:
    ticks = changed(tmp_path, (FOUR - 600.0, {"it": HOURLY}), ticks={"it": every(HOUR, FOUR, NEXT_NOON)})
    assert ticks.findings == ()
    assert (only(ticks).expected, only(ticks).sent) == (21, 21)
    late = changed(tmp_path, (FOUR - 600.0, {"it": HOURLY}), ticks={"it": every(HOUR, FOUR + 1.0, NEXT_NOON)})
    assert codes(late) == ["tick-missing"]
    assert only(late).missing.first == ("2026-11-10T16:00+01:00",)


def test_an_entry_that_is_taken_out_is_judged_until_then_and_that_is_said(tmp_path: Path) -> None:
    beat = Beat(tmp_path)
    beat.live(NOON, NEXT_NOON, {"it": HOURLY, "ok": HOURLY}, {
        "it": every(HOUR, NOON, FOUR), "ok": every(HOUR, NOON, NEXT_NOON)
    })  # fmt: skip
    beat.change(FOUR - 600.0, {"ok": HOURLY})
    ticks = said(tmp_path)
    assert codes(ticks, *Verdict) == ["entries-removed"]
    assert "not demanded from then on: it." in ticks.findings[0].text
    assert [(entry.expected, entry.sent) for entry in ticks.entries] == [(3, 3), (24, 24)]


def test_an_entry_that_stays_while_others_come_and_go_is_judged_all_the_time(tmp_path: Path) -> None:
    changes = [(FOUR - 600.0, {"it": HOURLY, "b": HOURLY}), (FOUR + 900.0, {"it": HOURLY})]
    times = [t for t in every(HOUR, NOON, NEXT_NOON) if t != FOUR + HOUR]
    beat = Beat(tmp_path)
    beat.live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": times, "b": [FOUR]})
    for t, rules in changes:
        beat.change(t, rules)
    ticks = said(tmp_path)
    assert codes(ticks) == ["tick-missing"]
    assert [(entry.entry, entry.expected, entry.sent) for entry in ticks.entries] == [("b", 1, 1), ("it", 24, 23)]


def test_an_entry_whose_rule_is_replaced_is_judged_by_each_in_its_time(tmp_path: Path) -> None:
    beat = Beat(tmp_path)
    times = [*every(HOUR, NOON, FOUR), *every(1_800.0, FOUR + 60.0, NEXT_NOON)]
    beat.live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": times})
    beat.change(FOUR - 600.0, {"it": crontab("*/30")})
    ticks = said(tmp_path)
    assert codes(ticks) == ["tick-missing"]
    by_rule = {entry.rule[:4]: (entry.expected, entry.sent, entry.missing.first) for entry in ticks.entries}
    assert by_rule == {"0 * ": (3, 3, ()), "*/30": (41, 40, ("2026-11-10T16:00+01:00",))}


@pytest.mark.parametrize(("gone", "expected"), [({}, ["ticks-unscheduled"]), ({"it": crontab("30", "1")}, [])])
def test_an_entry_that_was_due_while_it_was_out_of_the_schedule_is_not_passed_over_in_silence(
    tmp_path: Path, gone: dict[str, Any], expected: list[str]
) -> None:
    beat = Beat(tmp_path)
    times = [t for t in every(HOUR, NOON, NEXT_NOON) if t != FOUR]
    beat.live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": times})
    beat.change(FOUR - 600.0, gone)
    beat.change(FOUR + 600.0, {"it": HOURLY})
    ticks = said(tmp_path)
    assert codes(ticks) == expected
    if expected:
        assert "it: 2026-11-10T16:00+01:00 (due while it was not in beat's schedule" in ticks.findings[0].text
    assert sum(entry.missing.count for entry in ticks.entries) == 0


def test_what_was_due_while_there_was_no_beat_is_another_matter(tmp_path: Path) -> None:
    Beat(tmp_path).live(NOON, FOUR - 600.0, {"it": HOURLY}, {"it": every(HOUR, NOON, FOUR)})
    Beat(tmp_path, pid=2).live(FOUR + 600.0, NEXT_NOON, {"it": HOURLY}, {"it": every(HOUR, FOUR + 600.0, NEXT_NOON)})
    assert codes(said(tmp_path), *Verdict) == ["ticks-skipped"]


@pytest.mark.parametrize("every_s", [0.5, 1.0])
def test_an_interval_may_be_shorter_than_a_second(tmp_path: Path, every_s: float) -> None:
    end = NOON + 60.0
    times = [NOON + every_s * n for n in range(1, int(60.0 / every_s))]
    Beat(tmp_path).live(NOON, end, {"it": interval(every_s)}, {"it": times})
    assert said(tmp_path).findings == ()
    assert only(said(tmp_path)).expected == len(times)
    Beat(tmp_path).live(NOON, end, {"it": interval(every_s)}, {"it": [*times[:9], *times[10:]]})
    assert codes(said(tmp_path)) == ["tick-missing"]


def test_an_interval_of_no_length_cannot_be_calculated(tmp_path: Path) -> None:
    Beat(tmp_path).live(NOON, NEXT_NOON, {"it": interval(0.0)}, {"it": [NOON + 1.0]})
    assert "cannot be calculated (every 0 s)" in text(said(tmp_path), "tick-unpredictable")


def test_a_rule_whose_members_stand_in_another_order_is_the_same(tmp_path: Path) -> None:
    stop = FOUR + 600.0
    Beat(tmp_path).live(NOON, stop, {"it": HOURLY}, {"it": every(HOUR, NOON, stop)})
    turned = dict(reversed(HOURLY.items()))
    Beat(tmp_path, pid=2).live(stop + 9.0, NEXT_NOON, {"it": turned}, {"it": every(HOUR, stop, NEXT_NOON)})
    assert only(said(tmp_path)).sent == 24


def test_an_interval_counts_from_when_it_was_added(tmp_path: Path) -> None:
    since = FOUR - 600.0
    times = [since + 600.0 * n for n in range(1, 122)]
    ticks = changed(tmp_path, (since, {"it": interval(600.0)}), ticks={"it": times})
    assert ticks.findings == ()
    assert only(ticks).sent == 121


# ------------------------------------------------------------------------------------- entries that cannot be sent


@pytest.mark.parametrize("rule", [HOURLY, interval(HOUR)])
def test_an_entry_that_cannot_be_sent_is_missing_with_the_reason(tmp_path: Path, rule: dict[str, Any]) -> None:
    beat = Beat(tmp_path)
    beat.live(NOON, NEXT_NOON, {"sum": rule, "ok": HOURLY}, {"ok": every(HOUR, NOON, NEXT_NOON)})
    for t in every(HOUR, NOON, NEXT_NOON):
        beat.say("unsent", entry="sum", at=t, reason="SchedulingError: two() missing 1 required argument: 'b'")
    beat.write()
    ticks = said(tmp_path)
    assert codes(ticks) == ["tick-missing"]
    assert "sum: 2026-11-10T13:" in text(ticks, "tick-missing")
    assert text(ticks, "tick-missing").endswith(
        "(due, and not sent; beat said: SchedulingError: two() missing 1 required argument: 'b')"
    )
    assert [entry.reasons for entry in ticks.entries] == [
        (),
        ("SchedulingError: two() missing 1 required argument: 'b'",),
    ]


def test_reasons_from_outside_of_a_timelapse_do_not_count_and_only_the_first_are_named(tmp_path: Path) -> None:
    beat = Beat(tmp_path)
    beat.live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": []})
    for number, t in enumerate(every(HOUR, NOON, NEXT_NOON)):
        beat.say("unsent", entry="it", at=t, reason=f"no {number}")
    beat.write()
    window = Window(begin_t=FOUR - 60.0, end_t=FOUR + 6 * HOUR)
    ticks = said(tmp_path, window)
    assert only(ticks).reasons == tuple(f"no {number}" for number in range(3, 9))
    assert text(ticks, "tick-missing").endswith("beat said: no 3; no 4; no 5)")


def test_a_record_that_knew_less_can_still_be_read(tmp_path: Path) -> None:
    Beat(tmp_path).live(NOON, NEXT_NOON, {"it": HOURLY}, {"it": every(HOUR, NOON, NEXT_NOON)})
    record = only(said(tmp_path))
    written = {
        name: value for name, value in record.to_json().items() if name not in {"reasons", "doubtful", "unscheduled"}
    }
    assert EntryTicks.from_json(written) == record
    assert EntryTicks.from_json(json.loads(json.dumps(record.to_json()))) == record


# ------------------------------------------------------------------------------------------------- shadowed entries


@pytest.mark.parametrize(("named", "verdict"), [(False, Verdict.FAIL), (True, Verdict.PASS)])
def test_an_entry_that_takes_the_place_of_another_is_found(tmp_path: Path, *, named: bool, verdict: Verdict) -> None:
    shadow = {"entry": "news()", "lost": "<crontab: 0 7>", "kept": "<crontab: 0 19>", "named": named}
    for pid in (1, 2):
        beat = Beat(tmp_path, pid=pid)
        begin = NOON + 600.0 * pid
        beat.live(begin, begin + 300.0, {"it": HOURLY}, {"it": []})
        next(line for line in beat.lines if line["kind"] == "settings")["shadowed"] = [shadow]
        beat.write()
    (finding,) = [finding for finding in said(tmp_path).findings if finding.code == "entry-shadowed"]
    assert (finding.verdict, finding.count) == (verdict, 1)
    assert finding.text.startswith("news(): <crontab: 0 19> took the place of <crontab: 0 7>, which is never sent")
    assert ("give each one a `name`" in finding.text) is not named


@pytest.mark.parametrize("module", [beat_history, tick_records])
def test_a_record_never_changes_and_names_each_of_its_members(module: ModuleType) -> None:
    records = [one for one in vars(module).values() if isinstance(one, type) and is_dataclass(one)]
    own = [one for one in records if one.__module__ == module.__name__ and not one.__name__.startswith("_")]
    assert own
    for record in own:
        assert vars(record)["__dataclass_params__"].frozen, record
        kinds = {one.kind for one in signature(record).parameters.values()}
        assert kinds == {Parameter.KEYWORD_ONLY}, record
