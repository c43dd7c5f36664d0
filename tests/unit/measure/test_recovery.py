"""The recovery from a fault, calculated from a journal."""

from collections.abc import Sequence

import pytest

from harness.measure.recovery import Recovery, Signs, Window, backlog_recovery, until_next
from harness.measure.stages import Stages
from harness.records.event import Event, Kind
from harness.records.values import Json

INJECTED_T = 1_000.0
HEALING_T = 1_005.0
HEALED_T = 1_006.0


class Journal:
    """A journal that is taken in as it is written, in any order of the times."""

    def __init__(self) -> None:
        """Begin without a line."""
        self.stages = Stages(lambda _: None)
        self.signs = Signs(self.stages)
        self._n = 0

    def write(self, t: float, kind: Kind, task: str | None = None, *, node: str = "worker-1", **data: Json) -> None:
        self._n += 1
        event = Event(kind=kind, t=t, n=self._n, node=node, pid=1, task=task, data=data)
        self.stages.take(event)
        self.signs.take(event)

    def run(self, task: str, sent_t: float, end_t: float | None, *, node: str = "worker-1") -> None:
        """Write a task from its sending to its end, if it has one."""
        self.write(sent_t, Kind.INTENDED, task, node="producer")
        self.write(sent_t, Kind.ACCEPTED, task, node="producer", confirmed=True)
        if end_t is not None:
            self.write(end_t - 0.01, Kind.STARTED, task, node=node)
            self.write(end_t, Kind.FINISHED, task, node=node, state="SUCCESS")

    def recovery(self, *, node: str | None = "worker-1", until_t: float = float("inf")) -> Recovery:
        window = Window(
            begun_t=INJECTED_T, healing_t=HEALING_T, healed_t=HEALED_T, node=node, tasks={"met"}, until_t=until_t
        )
        return self.signs.recovery(window)


@pytest.fixture
def journal() -> Journal:
    """Return a journal in which ten tasks a second were sent and ended, before the fault and after."""
    journal = Journal()
    journal.write(985.0, Kind.UP)
    journal.write(986.0, Kind.READY)
    for number in range(100):
        journal.run(f"before-{number}", 990 + number / 10, 990.05 + number / 10)
    for number in range(100):
        journal.run(f"after-{number}", 1008 + number / 10, 1008.05 + number / 10)
    return journal


def test_a_run_without_any_sign_has_no_figures_but_those_of_its_tasks(journal: Journal) -> None:
    found = journal.recovery()
    assert (found.noticed_s, found.reconnected_s, found.redelivered) == (None, None, 0)
    assert (found.first_task_s, found.backlog_s) == (3.04, 0.0)
    assert found.throughput == pytest.approx(1.0, abs=0.03)
    assert found.empty_s == pytest.approx(1.0, abs=0.11)
    assert found.words().startswith("from the healing on, the first task after 3.04 s, nothing in flight after 1")
    assert found.words().endswith("the backlog did not grow; the throughput afterwards was 100% of that before")


def test_what_was_at_rest_before_the_healing_ended_was_at_rest_then() -> None:
    journal = Journal()
    journal.run("only", INJECTED_T - 1, HEALING_T + 0.2)
    assert journal.recovery().empty_s == HEALED_T - HEALING_T


@pytest.mark.parametrize(
    ("kind", "task", "data"),
    [
        (Kind.DISCONNECTED, None, {"reason": "OSError"}),
        (Kind.REFUSED, "any", {}),
        (Kind.UNKNOWN, "any", {}),
        (Kind.EXITED, None, {"child": 7, "code": -9}),
        (Kind.RECEIVED, "any", {"redelivered": True}),
        (Kind.RETRIED, "met", {}),
        (Kind.FINISHED, "met", {"state": "FAILURE", "error": "OSError"}),
    ],
)
def test_it_is_noticed_by_the_first_sign(journal: Journal, kind: Kind, task: str | None, data: dict[str, Json]) -> None:
    journal.write(INJECTED_T + 4, kind, task, **data)
    journal.write(INJECTED_T + 2, kind, task, **data)
    journal.write(INJECTED_T - 1, kind, task, **data)
    assert journal.recovery().noticed_s == 2.0
    assert "noticed after 2 s" in journal.recovery().words()
    assert journal.recovery(until_t=INJECTED_T + 1).noticed_s is None


@pytest.mark.parametrize(
    ("kind", "task", "data"),
    [
        (Kind.EXITED, None, {"child": 7, "code": 0}),
        (Kind.RECEIVED, "any", {"redelivered": False}),
        (Kind.RETRIED, "another", {}),
        (Kind.FINISHED, "another", {"state": "FAILURE", "error": "OSError"}),
        (Kind.FINISHED, "met", {"state": "SUCCESS"}),
    ],
)
def test_what_happens_anyway_is_no_sign(journal: Journal, kind: Kind, task: str | None, data: dict[str, Json]) -> None:
    journal.write(INJECTED_T + 2, kind, task, **data)
    assert journal.recovery().noticed_s is None


def test_it_is_reconnected_when_the_last_one_is(journal: Journal) -> None:
    journal.write(1002, Kind.DISCONNECTED, reason="")
    journal.write(1007, Kind.RECONNECTED)
    assert journal.recovery().reconnected_s == 2.0
    # A node that was there before and is started again; and one that is new.
    for node, up_t in (("beat-1", 980.0), ("beat-1", 1006.0), ("worker-2", 1006.0)):
        journal.write(up_t, Kind.UP, node=node)
    assert journal.recovery().reconnected_s == 2.0
    journal.write(981, Kind.READY, node="beat-1")
    assert journal.recovery().reconnected_s is None, "beat did not come back"
    journal.write(1009.5, Kind.READY, node="beat-1")
    journal.write(1020, Kind.READY, node="worker-2")
    assert journal.recovery().reconnected_s == 4.5
    assert "ready again after 4.5 s" in journal.recovery().words()


def test_one_that_was_back_before_the_healing_took_no_time(journal: Journal) -> None:
    journal.write(1002, Kind.DISCONNECTED, reason="")
    journal.write(1003, Kind.RECONNECTED)
    assert journal.recovery().reconnected_s == 0.0


def test_the_first_task_is_that_of_the_broken_worker_and_of_any_if_it_is_none(journal: Journal) -> None:
    journal.run("elsewhere", 1004, 1006.01, node="worker-2")
    assert journal.recovery().first_task_s == 3.04
    assert journal.recovery(node="broker").first_task_s == 1.0
    assert journal.recovery(until_t=1005.5).first_task_s is None


def test_a_backlog_that_grew_and_went_is_measured_to_its_end(journal: Journal) -> None:
    for number in range(30):
        journal.run(f"meanwhile-{number}", 1002, 1007 + number / 20)
    found = journal.recovery()
    assert found.backlog_s == pytest.approx(8.2, abs=0.3)
    assert found.empty_s == pytest.approx(3.5, abs=0.2)
    assert "the backlog was back where it had been" in found.words()


def test_a_backlog_that_is_empty_at_the_end_stays_so(journal: Journal) -> None:
    window = Window(begun_t=1000, healing_t=1001, healed_t=1002, node=None, tasks=())
    samples = [(999.0, 0), (1001.0, 50), (1003.0, 5), (1004.0, 0)]
    assert journal.signs.recovery(window, samples).backlog_s == 3.0
    # With tasks in flight, nobody knows how long it would have stayed there.
    assert journal.signs.recovery(window, samples[:-1]).backlog_s is None


def test_what_never_ended_leaves_the_backlog_where_it_is(journal: Journal) -> None:
    for number in range(30):
        journal.run(f"lost-{number}", 1002, None)
    found = journal.recovery()
    assert (found.backlog_s, found.empty_s) == (None, None)
    assert "the backlog was not seen to come back" in found.words()


def test_a_worker_that_is_slower_afterwards_is_told(journal: Journal) -> None:
    slower = Journal()
    for number in range(100):
        slower.run(f"before-{number}", 990 + number / 10, 990.05 + number / 10)
    for number in range(100):
        slower.run(f"queued-{number}", 1001, 1008 + number / 4)
    assert slower.recovery().throughput == pytest.approx(0.4, abs=0.02)
    assert journal.recovery(until_t=1010).throughput is None, "two seconds are too short"


def test_a_few_tasks_are_no_throughput() -> None:
    journal = Journal()
    for number in range(5):
        journal.run(f"before-{number}", 990 + number, 990.5 + number)
        journal.run(f"after-{number}", 1007 + number, 1007.5 + number)
    assert journal.recovery().throughput is None


def test_messages_that_are_delivered_again_are_counted(journal: Journal) -> None:
    for t in (999.0, 1001.0, 1007.0, 1015.0):
        journal.write(t, Kind.RECEIVED, "any", redelivered=True)
    assert journal.recovery().redelivered == 3
    assert journal.recovery(until_t=1010).redelivered == 2
    assert "2 messages were delivered again" in journal.recovery(until_t=1010).words()


def test_each_fault_counts_until_the_next_one() -> None:
    windows = [
        Window(begun_t=t, healing_t=t + 1, healed_t=t + 1, node=None, tasks=()) for t in (30.0, 10.0, 20.0, 20.0)
    ]
    assert [one.until_t for one in until_next(windows)] == [float("inf"), 20.0, 30.0, 30.0]


def recovered(backlogs: Sequence[int], *, injected_s: float, healed_s: float | None) -> float | None:
    """Return the recovery from a fault, where `backlogs` were seen at 0 s, 1 s and so on."""
    samples = [(float(t), backlog) for t, backlog in enumerate(backlogs)]
    return backlog_recovery(samples, begun_t=injected_s, healed_t=healed_s)


STILL = [3, 4, 3, 2, 4, 3, 4, 3, 2, 3]


@pytest.mark.parametrize(
    ("after", "healed_s", "seconds"),
    [
        ([50, 90, 60, 20, 10, 9, 3, 3, 3], 12.5, 5.5),
        ([3, 3, 3, 3, 3, 3, 3, 3], 12.5, 0.0),
        # Down to where it was, but not for three seconds.
        ([50, 4, 4, 50, 4, 4, 4, 4], 10.5, 4.5),
        # The same, long after it was healed.
        ([50, 50, 50, 50, 4, 4, 50, 4, 4, 4, 4], 10.5, 7.5),
        # Still while the fault lasts, then up: the fault was not over before.
        ([4, 4, 4, 4, 50, 4, 4, 4, 4], 14.5, 5.5),
        # It grows only when the broker is back.
        ([0, 0, 0, 80, 80, 4, 4, 4, 4], 12.5, 5.5),
        # Something else, much later.
        ([3, 3, 3, 3, 3, 3, 3, 3, 3, 90, 90], 10.5, 0.0),
        # It never comes back, or nobody saw that it stayed.
        ([50, 90, 200, 300, 400], 11.5, None),
        ([50, 90, 4, 4, 4], 11.5, None),
        ([50, 60, 4, 4, 4, 4], None, 2.5),
        ([], 11.5, None),
    ],
)
def test_a_backlog_has_recovered_once_it_is_back_and_stays(
    after: list[int], healed_s: float | None, seconds: float | None
) -> None:
    assert recovered(STILL + after, injected_s=9.5, healed_s=healed_s) == seconds


def test_the_margin_is_a_tenth_where_that_is_more_than_a_few_tasks() -> None:
    level = [200] * 10
    assert recovered([*level, 219, 220, 220, 220, 220], injected_s=9.5, healed_s=10.0) == 0.0
    assert recovered([*level, 221, 220, 220, 220, 220], injected_s=9.5, healed_s=10.0) == 1.5


def test_only_the_last_ten_seconds_before_a_fault_count() -> None:
    assert recovered([500, *[3] * 11, 50, 50, 3, 3, 3, 3], injected_s=11.5, healed_s=12.0) == 2.5


def test_without_a_measurement_before_the_fault_there_is_nothing_to_come_back_to() -> None:
    assert recovered([50, 4, 4, 4, 4, 4], injected_s=-1.0, healed_s=0.5) is None
