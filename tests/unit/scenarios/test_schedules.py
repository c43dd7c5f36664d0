"""Reminders and reports: what the tasks do, what is predicted of them, and each finding with what turns it red."""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.backends.database import DatabaseBackend
from celery.exceptions import Reject, Retry
from sqlalchemy.exc import IntegrityError, OperationalError

from harness import Drive, Effect
from harness.errors import StartError, WaitTimeout
from harness.scenario import Steps
from scenarios.app import app, database
from scenarios.schedules import scenario as schedules
from scenarios.schedules import tasks
from scenarios.schedules.prediction import reminder_id
from scenarios.schedules.scenario import scenario
from scenarios.schedules.tasks import BACKOFF_LIMIT_S, BUSY_PAUSE_S, remind, report

DRIVE = Drive(count=8, seed=7)
EXPIRED = reminder_id(2, 7)
# What a drive of eight steps and two ticks leaves behind when all is well: key, task, due_at, done_at.
ROWS = [
    *[(f"reminder-{reminder_id(number, 7)}", f"task-{number}", 100.0, 100.5) for number in (0, 1, 3, 4, 5, 7)],
    ("check-stock-tick-1", "tick-1", None, 90.0),
    ("check-stock-tick-2", "tick-2", None, 92.0),
]


@pytest.fixture
def app_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Yield the app's own database, empty, with results beside it, where Celery records a retry."""
    monkeypatch.setenv("APP_DATABASE_URL", f"sqlite:///{tmp_path}/app.sqlite3")
    backend = DatabaseBackend(app=app, url=f"sqlite:///{tmp_path}/results.sqlite3")
    monkeypatch.setattr(app, "_backend_cache", backend)
    yield tmp_path / "app.sqlite3"
    database().dispose()


def rows(path: Path) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT key, task, due_at FROM scheduled ORDER BY key").fetchall()


# The tasks


def test_a_reminder_and_a_report_are_one_row_each_however_often_they_run(app_database: Path) -> None:
    for _ in range(2):
        assert remind.apply(args=("7-1", 12.5), task_id="a").result == "7-1"
        assert report.apply(args=("check-stock",), task_id="b").result == "check-stock"
    report.apply(args=("check-stock",), task_id="c")
    assert rows(app_database) == [
        ("check-stock-b", "b", None),
        ("check-stock-c", "c", None),
        ("reminder-7-1", "a", 12.5),
    ]


def test_a_busy_line_is_tried_again_after_a_pause_and_leaves_one_row(
    app_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = []
    real = remind.retry

    def retry(*, countdown: float, **options: Any) -> Any:
        pauses.append(countdown)
        return real(countdown=countdown, **options)

    monkeypatch.setattr(remind, "retry", retry)
    assert remind.apply(args=("7-3", 12.5), kwargs={"busy": 2}, task_id="a").result == "7-3"
    assert pauses == [BUSY_PAUSE_S] * 2
    assert rows(app_database) == [("reminder-7-3", "a", 12.5)]


def broken(*_: Any) -> None:
    raise OperationalError("INSERT", {}, Exception("database is locked"))


@pytest.mark.parametrize(
    ("task", "given"), [(remind, ("7-1", 12.5)), (remind, ("7-1", 12.5, 1)), (report, ("check-stock",))]
)
@pytest.mark.parametrize("answer", [Retry("later"), Reject("no broker", requeue=False)])
def test_whoever_has_to_wait_is_tried_again_soon_and_no_task_is_dropped(
    monkeypatch: pytest.MonkeyPatch, task: Any, given: tuple[Any, ...], answer: Exception
) -> None:
    def retry(*, countdown: float, **_: Any) -> Exception:
        assert 0 <= countdown <= BACKOFF_LIMIT_S
        if isinstance(answer, Reject):
            raise answer
        return answer

    monkeypatch.setattr(tasks, "_prepared", broken)
    monkeypatch.setattr(task, "retry", retry)
    with pytest.raises(type(answer)) as caught:
        task.run(*given)
    if isinstance(caught.value, Reject):
        assert caught.value.requeue


def test_a_table_that_somebody_else_makes_at_the_same_moment_is_there() -> None:
    class Overtaken:
        def connect(self) -> "Overtaken":
            raise IntegrityError("CREATE TABLE", {}, Exception("duplicate key value violates unique constraint"))

    engine: Any = Overtaken()
    assert tasks._prepared(engine) is engine  # noqa: SLF001 - no test can bring two processes to the same moment.


@pytest.mark.parametrize("task", [remind, report])
def test_a_task_whose_pool_process_died_runs_again_within_seconds(task: Any) -> None:
    assert task.retry_on_worker_lost
    assert task.default_retry_delay <= 5


# What is sent


class Sender:
    """Stands for the producer, and keeps what would have been sent."""

    def __init__(self) -> None:
        """Nothing is sent yet."""
        self.sent: list[dict[str, Any]] = []

    def send(self, name: str, **how: Any) -> None:
        assert name == "scenarios.schedules.remind"
        self.sent.append(how)


def test_each_four_steps_are_an_eta_a_countdown_one_that_expires_and_a_busy_line() -> None:
    producer: Any = Sender()
    before = time.time()
    for number in range(4):
        scenario.step(producer, number, 7)
    eta, countdown, expired, busy = producer.sent
    # An ETA is told in microseconds.
    assert eta["eta"].timestamp() == pytest.approx(eta["kwargs"]["due_at"], abs=1e-6)
    assert before + 1 < eta["kwargs"]["due_at"] < time.time() + 2
    assert countdown["countdown_s"] > countdown["kwargs"]["due_at"] - time.time()
    assert 0 < expired["expires_s"] < expired["countdown_s"]
    assert (expired["expect"].state, tuple(expired["expect"].effects)) == ("REVOKED", ())
    assert busy["kwargs"]["busy"] == 1
    for number, sent in enumerate((eta, countdown, busy)):
        reminder = reminder_id((0, 1, 3)[number], 7)
        assert sent["kwargs"]["reminder"] == sent["expect"].result == reminder
        assert list(sent["expect"].effects) == [f"row:reminder-{reminder}"]


# Beat


class Beats:
    """Stands for a stack whose beats take their time to start, by a clock of its own."""

    def __init__(self, now_s: float, *takes_s: float) -> None:
        """Every start takes as long as it is told to, one after the other."""
        self.now_s = now_s
        self.takes_s = iter(takes_s)
        self.beats: list[SimpleNamespace] = []
        self.ledger = SimpleNamespace(ticks=Counter())

    def add_beat(self, *, ahead_s: float) -> SimpleNamespace:
        beat = SimpleNamespace(began_s=self.now_s + ahead_s, stopped_s=None, last_lines=lambda _: "its last words")
        self.now_s += next(self.takes_s)
        beat.stop = lambda: setattr(beat, "stopped_s", self.now_s + ahead_s)
        self.beats.append(beat)
        return beat


@pytest.mark.parametrize("now_s", [0.0, 3591.0, 3592.0, 3592.5, 3599.999, 86_399.5, 1_795_366_773.25])
def test_beat_starts_a_few_seconds_before_a_full_hour_whatever_time_it_is(
    now_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack: Any = Beats(now_s, 7.9)
    monkeypatch.setattr(schedules, "time", SimpleNamespace(time=lambda: stack.now_s))
    scenario.prepare(stack, DRIVE)
    (beat,) = stack.beats
    assert beat.began_s % 3600 == pytest.approx(3592, abs=1e-3)
    assert now_s <= beat.began_s <= now_s + 3600
    assert beat.stopped_s is None


def test_where_the_hour_was_over_before_beat_was_ready_another_one_waits_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stack: Any = Beats(1_795_366_773.25, 8.1, 20)
    monkeypatch.setattr(schedules, "time", SimpleNamespace(time=lambda: stack.now_s))
    scenario.prepare(stack, DRIVE)
    late, beat = stack.beats
    assert beat.began_s % 3600 == pytest.approx(3570, abs=1e-3)
    # What the first may have sent, the second does not send again.
    assert late.stopped_s < beat.began_s < late.stopped_s + 3600
    assert beat.stopped_s is None


def test_a_beat_that_is_never_ready_in_time_is_an_error_and_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    stack: Any = Beats(1_795_366_773.25, 8.1, 31)
    monkeypatch.setattr(schedules, "time", SimpleNamespace(time=lambda: stack.now_s))
    with pytest.raises(StartError, match="beat needed 31 s to start"):
        scenario.prepare(stack, DRIVE)
    assert all(beat.stopped_s is not None for beat in stack.beats)


def test_the_end_is_when_all_ticks_were_sent_and_every_beat_is_stopped() -> None:
    stack: Any = Beats(0.0, 1, 1)
    for _ in range(2):
        stack.add_beat(ahead_s=1.0)
    stack.ledger.ticks.update({"check-stock": 3, "sales-so-far": 1, "hourly-report": 1})
    scenario.finish(stack, DRIVE)
    assert all(beat.stopped_s is not None for beat in stack.beats)


def test_ticks_that_do_not_come_are_an_error_that_says_which_came(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(probe: Any, *, what: str, timeout_s: float, last_seen: Any) -> None:
        assert timeout_s == 60
        assert not probe()
        raise WaitTimeout(f"{what}: {last_seen()}")

    monkeypatch.setattr(schedules, "wait_until", give_up)
    stack: Any = Beats(0.0, 1)
    stack.add_beat(ahead_s=1.0)
    stack.ledger.ticks.update({"check-stock": 9, "sales-so-far": 1})
    with pytest.raises(WaitTimeout, match=r"'check-stock': 9(.|\n)*its last words"):
        scenario.finish(stack, DRIVE)


# The check


@pytest.fixture
def left(tmp_path: Path) -> SimpleNamespace:
    """Return what a run leaves, as plain values that a test may change."""
    return SimpleNamespace(
        folder=tmp_path,
        rows=list(ROWS),
        states=["SUCCESS"] * 8 + ["REVOKED"] * 2,
        unended=0,
        retries=Counter({f"task-{number}": 1 for number in (3, 7)}),
        ticks=Counter({"check-stock": 2, "celery.backend_cleanup": 1}),
    )


def stack_of(left: SimpleNamespace) -> Any:
    results = [SimpleNamespace(task=f"result-{number}", status=state) for number, state in enumerate(left.states)]
    return SimpleNamespace(
        folder=SimpleNamespace(path=left.folder),
        results=SimpleNamespace(rows=lambda: iter(results)),
        ledger=SimpleNamespace(
            sent=100, ended=100 - left.unended, retries=lambda task: left.retries[task], ticks=left.ticks
        ),
    )


def fill(left: SimpleNamespace) -> None:
    (left.folder / "app").mkdir()
    with closing(sqlite3.connect(left.folder / "app/app.sqlite3")) as connection, connection:
        connection.execute("CREATE TABLE scheduled (key, task, due_at, done_at)")
        connection.executemany("INSERT INTO scheduled VALUES (?, ?, ?, ?)", left.rows)


def test_every_row_is_an_effect_and_without_a_database_there_is_none(left: SimpleNamespace) -> None:
    assert list(scenario.effects(stack_of(left), DRIVE)) == []
    fill(left)
    assert list(scenario.effects(stack_of(left), DRIVE)) == [
        Effect(key=f"row:{key}", task=task) for key, task, _, _ in ROWS
    ]


def nothing(_left: SimpleNamespace) -> None:
    """All is well."""


def dropped_or_refused_by_the_broker(left: SimpleNamespace) -> None:
    """One that expired before a worker had it, or that the broker did not take: no row, and no end."""
    left.states.remove("REVOKED")
    left.unended = 1


def tried_more_often(left: SimpleNamespace) -> None:
    left.retries["task-3"] += 1


def row_done_early(left: SimpleNamespace) -> None:
    left.rows[0] = (*ROWS[0][:3], 99.9)


def revoked_row_missing(left: SimpleNamespace) -> None:
    left.states.remove("REVOKED")


def one_more_revoked(left: SimpleNamespace) -> None:
    left.states.append("REVOKED")


def expired_and_done(left: SimpleNamespace) -> None:
    left.rows.append((f"reminder-{EXPIRED}", "task-2", 100.0, 100.5))


def busy_and_not_tried_again(left: SimpleNamespace) -> None:
    left.retries["task-7"] = 0


def tick_not_reported(left: SimpleNamespace) -> None:
    left.rows.pop()


def report_of_no_tick(left: SimpleNamespace) -> None:
    left.rows.append(("hourly-report-tick-3", "tick-3", None, 95.0))


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (nothing, []),
        (dropped_or_refused_by_the_broker, []),
        (tried_more_often, []),
        (row_done_early, [("reminder-early", ("task-0",))]),
        (revoked_row_missing, [("revoked-rows", ("result-8",))]),
        (one_more_revoked, [("revoked-rows", ("result-8", "result-9", "result-10"))]),
        (expired_and_done, [("expired-ran", ("task-2",))]),
        (busy_and_not_tried_again, [("not-retried", ("task-7",))]),
        (tick_not_reported, [("reports-differ", ())]),
        (report_of_no_tick, [("reports-differ", ())]),
    ],
)
def test_each_thing_that_goes_wrong_is_found_under_its_own_name_alone(
    left: SimpleNamespace, spoil: Any, found: list[Any]
) -> None:
    spoil(left)
    fill(left)
    assert [(one.code, one.tasks) for one in scenario.check(stack_of(left), DRIVE)] == found


def test_only_the_reminders_that_were_sent_are_asked_for(left: SimpleNamespace) -> None:
    # Of the four kinds, the steps 2 and 6 expire; the second was never taken.
    left.states.remove("REVOKED")
    fill(left)
    steps = Steps([range(6), range(7, 8)])
    assert list(scenario.check(stack_of(left), Drive(count=7, seed=7, steps=steps))) == []
    assert [one.code for one in scenario.check(stack_of(left), DRIVE)] == ["revoked-rows"]


def test_the_check_reads_the_journal_once_however_many_reminders_there_are(left: SimpleNamespace) -> None:
    count = 4000
    left.rows = [
        (f"reminder-{reminder_id(number, 7)}", f"task-{number}", 100.0, 100.5)
        for number in range(count)
        if number % 4 != 2
    ]
    left.states = ["REVOKED"] * (count // 4)
    left.retries = Counter({f"task-{number}": 1 for number in range(3, count, 4)})
    left.ticks = Counter()
    fill(left)
    asked = []

    class Watched:
        """A stack that reads its journal each time that it is asked for the ledger."""

        def __init__(self, stack: Any) -> None:
            """Share the folder, the results and the ledger of a stack."""
            self.folder, self.results, self._ledger = stack.folder, stack.results, stack.ledger

        @property
        def ledger(self) -> Any:
            asked.append(1)
            return self._ledger

    watched: Any = Watched(stack_of(left))
    assert list(scenario.check(watched, Drive(count=count, seed=7))) == []
    assert len(asked) == 1


def test_no_reminder_can_be_ordered_over_http() -> None:
    assert {scenario.request(number, 7) for number in range(4)} == {None}
