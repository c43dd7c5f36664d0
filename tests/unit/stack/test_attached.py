"""What runs elsewhere, read from its result table alone; here that is a SQLite file, and no broker is asked."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from harness.audit import results
from harness.audit.audit import audit
from harness.audit.run_folder import RunFolder, dump
from harness.errors import BrokerError, ResultsError, UsageError
from harness.measure.stages import Passed, Stage, Stages
from harness.records.event import Event, Kind
from harness.records.expectation import Effect, Expect
from harness.records.journal import Writer
from harness.records.verdict import Fate, Finding, Verdict
from harness.stack import attached as module
from harness.stack import attached_urls
from harness.stack.attached import Attached
from harness.stack.attached_urls import reach
from harness.wait import Clock

BROKER_URL = "amqp://somebody:secret@broker.example:5672/shop"
UNWITNESSED = {"unwitnessed-executions", "unwitnessed-broker"}


class Elsewhere:
    """What others run: a result table, in which there are rows that have nothing to do with this run."""

    def __init__(self, path: Path) -> None:
        """Made anew at `path`."""
        self.path = path
        results.create(path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(
                "CREATE TABLE celery_taskmeta (id INTEGER PRIMARY KEY, task_id VARCHAR(155) UNIQUE, "
                "status VARCHAR(50), result BLOB, date_done DATETIME)"
            )
            connection.commit()
        for number in range(50):
            self.record(f"foreign-{number}", "FAILURE" if number % 2 else "SUCCESS", {"exc_type": "KeyError"})

    def record(
        self,
        task: str,
        status: str = "SUCCESS",
        result: Any = None,
        *,
        t: float | None = None,
        zone: timezone = UTC,
        dated: bool = True,
    ) -> None:
        """As Celery does it: the time is that of the app's zone, which the table does not know."""
        moment = datetime.fromtimestamp(time.time() if t is None else t, zone)
        done = f"{moment:%Y-%m-%d %H:%M:%S.%f}" if dated else None
        stored = result if isinstance(result, bytes) else json.dumps({"ok": task} if result is None else result)
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute(
                "INSERT OR REPLACE INTO celery_taskmeta (task_id, status, result, date_done) VALUES (?, ?, ?, ?)",
                (task, status, stored, done),
            )
            connection.commit()


class Load:
    """A load process: it says in the journal what it sends."""

    def __init__(self, folder: RunFolder) -> None:
        """Into the journal of `folder`."""
        self.writer = Writer(folder.journal, node="load", role="producer")

    def send(self, task: str, outcome: Kind | None = Kind.ACCEPTED, **expect: Any) -> None:
        expected = Expect(**{"result": {"ok": task}, **expect})
        self.writer.write(Kind.INTENDED, task, name="act", **expected.to_json())
        if outcome is not None:
            self.writer.write(outcome, task, **({"confirmed": True} if outcome is Kind.ACCEPTED else {}))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Elsewhere:
    return Elsewhere(tmp_path / "theirs.sqlite3")


@pytest.fixture
def attached(elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Attached]:
    monkeypatch.setattr(attached_urls, "check_broker", lambda _: None)
    monkeypatch.setattr(module, "_LEAST_REST_S", 0.0)
    monkeypatch.setattr(module, "_REST_PER_LOOK", 0)
    folder = RunFolder.create(tmp_path, "attached")
    with Attached(BROKER_URL, f"db+sqlite:///{elsewhere.path}", folder, about={"seed": 7}) as attached:
        yield attached


@pytest.fixture
def load(attached: Attached) -> Iterator[Load]:
    load = Load(attached.folder)
    yield load
    load.writer.close()


def codes(attached: Attached) -> set[str]:
    assert attached.audited is not None
    return {finding.code for finding in attached.audited.findings}


def test_what_has_a_row_as_expected_is_ok_and_the_rest_of_the_table_is_not_ours(
    attached: Attached, load: Load, elsewhere: Elsewhere
) -> None:
    for task in ("a", "b"):
        load.send(task)
        elsewhere.record(task)
    found = attached.settle(0)
    assert (found.verdict, found.entries, found.fates[Fate.OK]) == (Verdict.UNKNOWN, 2, 2)
    assert codes(attached) == UNWITNESSED
    assert 0 < found.e2e_ms["max"] < 1_000
    with closing(sqlite3.connect(attached.folder.results)) as copy:
        assert [row for (row,) in copy.execute("SELECT task_id FROM celery_taskmeta ORDER BY 1")] == ["a", "b"]
    assert attached.folder.read("broker.json")["readable"] is False
    assert attached.folder.read("audit.json") == json.loads(dump(audit(attached.folder).to_json()))


@pytest.mark.parametrize(
    ("status", "result", "fate", "verdict", "code"),
    [
        ("SUCCESS", {"ok": "another"}, Fate.WRONG, Verdict.FAIL, "wrong"),
        ("FAILURE", {"exc_type": "KeyError"}, Fate.FAILED, Verdict.FAIL, "failed-unexpectedly"),
        ("REVOKED", {"exc_type": "TaskRevokedError"}, Fate.FAILED, Verdict.FAIL, "failed-unexpectedly"),
        ("STARTED", {}, Fate.UNKNOWN, Verdict.UNKNOWN, "unknown"),
        (None, None, Fate.UNKNOWN, Verdict.UNKNOWN, "unknown"),
    ],
)
def test_what_has_another_row_or_none_has_another_fate(
    *,
    attached: Attached,
    load: Load,
    elsewhere: Elsewhere,
    status: str | None,
    result: Any,
    fate: Fate,
    verdict: Verdict,
    code: str,
) -> None:
    load.send("a")
    load.send("x")
    elsewhere.record("a")
    if status is not None:
        elsewhere.record("x", status, result)
    found = attached.settle(0)
    assert {met: times for met, times in found.fates.items() if times} == {Fate.OK: 1, fate: 1}
    assert found.verdict is verdict
    assert {*UNWITNESSED, code} <= codes(attached)


def test_no_file_holds_a_password(elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached_urls, "check_broker", lambda _: None)
    monkeypatch.setattr("sys.argv", ["locust", "--broker-url", BROKER_URL, "--results", "postgresql://u:sec@ret@h/d"])
    folder = RunFolder.create(tmp_path, "attached")
    about = {"load": {"urls": [BROKER_URL, "postgresql://h/d?user=u&password=secret&x=1"]}}
    with Attached(BROKER_URL, f"sqlite:///{elsewhere.path}", folder, about=about) as attached:
        Load(folder).send("a")
        attached.settle(0)
        assert attached.producer_url == BROKER_URL
    files = [path for path in folder.path.rglob("*") if path.is_file()]
    assert {"run.json", "broker.json", "audit.json", "results.sqlite3"} <= {path.name for path in files}
    assert [path for path in files if b"secret" in path.read_bytes() or b"sec@ret" in path.read_bytes()] == []
    run = folder.read("run.json")
    urls = ["'amqp://somebody:***@broker.example:5672/shop'", "'postgresql://u:***@h/d'"]
    assert run["command"] == f"locust --broker-url {urls[0]} --results {urls[1]}"
    assert run["attached"]["broker"] == "broker.example:5672/shop"
    assert run["load"]["urls"][1] == "postgresql://h/d?user=u&password=***&x=1"
    assert (run["nodes"], run["unwitnessed"]) == (["producer"], ["executions", "broker", "effects"])


def test_each_ending_is_told_once_and_in_order(attached: Attached, load: Load, elsewhere: Elsewhere) -> None:
    for task in ("a", "b", "c", "d", "gone"):
        load.send(task)
    load.send("refused", Kind.REFUSED)
    load.send("unknown", Kind.UNKNOWN)
    began_t = time.time()
    assert attached.poll() == []
    elsewhere.record("a", t=began_t + 0.3)
    elsewhere.record("b", "FAILURE", {"exc_type": "KeyError", "exc_message": ["no", 1]}, t=began_t + 0.2)
    elsewhere.record("c", "REVOKED", {}, t=began_t + 0.1)
    elsewhere.record("d", "RETRY", {}, dated=False)
    elsewhere.record("unknown", t=began_t + 0.4)
    events = attached.poll()
    assert [(event.task, event.kind, dict(event.data)) for event in events] == [
        ("c", Kind.REVOKED, {"state": "REVOKED"}),
        ("b", Kind.FINISHED, {"state": "FAILURE", "error": "KeyError: no, 1"}),
        ("a", Kind.FINISHED, {"state": "SUCCESS"}),
        ("unknown", Kind.FINISHED, {"state": "SUCCESS"}),
    ]
    assert [round(event.t - began_t, 3) for event in events] == [0.1, 0.2, 0.3, 0.4]
    assert {event.node for event in events} == {"results"}
    assert attached.poll() == []
    elsewhere.record("d")
    assert [event.task for event in attached.poll()] == ["d"]
    assert attached.ended == 5


@pytest.mark.parametrize("result", [b"\x80\x05K\x01.", b"[" * 100_000, b"7"])
def test_an_exception_that_is_no_json_is_not_decoded(
    attached: Attached, load: Load, elsewhere: Elsewhere, result: bytes
) -> None:
    load.send("a")
    elsewhere.record("a", "FAILURE", result)
    assert [event.data["error"] for event in attached.poll()] == ["an exception that is not JSON"]


@pytest.mark.parametrize("hours", [0, 2, -3.5, 5.75, 14, -12])
def test_the_zone_of_the_rows_is_found_out(attached: Attached, load: Load, elsewhere: Elsewhere, hours: float) -> None:
    zone = timezone(timedelta(hours=hours))
    load.send("a")
    t = time.time()
    elsewhere.record("a", t=t, zone=zone)
    (event,) = attached.poll()
    assert event.t == pytest.approx(t, abs=0.001)
    # One that nobody looked for before the end.
    load.send("b")
    elsewhere.record("b", t=t + 0.5, zone=zone)
    found = attached.settle(0)
    assert found.fates[Fate.OK] == 2
    assert 0 < found.e2e_ms["max"] < 2_000


def test_a_zone_that_changes_while_the_run_goes_on_is_found_out_anew(
    attached: Attached, load: Load, elsewhere: Elsewhere
) -> None:
    for task, hours in (("a", 2), ("b", 2), ("c", 1), ("d", 1)):
        load.send(task)
        t = time.time()
        elsewhere.record(task, t=t, zone=timezone(timedelta(hours=hours)))
        (event,) = attached.poll()
        assert event.t == pytest.approx(t, abs=0.001)
    assert 0 <= attached.settle(0).e2e_ms["max"] < 1_000


def test_a_worker_whose_clock_is_aside_is_not_in_another_zone(
    attached: Attached, load: Load, elsewhere: Elsewhere
) -> None:
    load.send("a")
    t = time.time() - 60
    elsewhere.record("a", t=t, zone=timezone(timedelta(hours=2)))
    assert [round(event.t - t, 3) for event in attached.poll()] == [0.0]


def test_a_row_that_was_written_anew_is_copied_as_it_is_now(
    attached: Attached, load: Load, elsewhere: Elsewhere
) -> None:
    zone = timezone(timedelta(hours=2))
    load.send("a")
    began_t = time.time()
    elsewhere.record("a", "FAILURE", {"exc_type": "WorkerLostError"}, t=began_t, zone=zone)
    assert len(attached.poll()) == 1
    elsewhere.record("a", t=began_t + 5.5, zone=zone)
    found = attached.settle(0)
    assert found.fates[Fate.OK] == 1
    assert 5_000 < found.e2e_ms["max"] < 7_000


def test_a_final_row_without_a_time_has_ended_when_it_is_seen(
    attached: Attached, load: Load, elsewhere: Elsewhere
) -> None:
    load.send("a")
    elsewhere.record("a", dated=False)
    (event,) = attached.poll()
    assert 0 <= time.time() - event.t < 1
    found = attached.settle(0)
    assert (found.fates[Fate.OK], found.e2e_ms) == (1, {})


def test_latency_and_backlog_are_live(attached: Attached, load: Load, elsewhere: Elsewhere) -> None:
    passed: list[Passed] = []
    stages = Stages(passed.append)
    attached.ledger.listeners.append(stages.take)
    for task in ("a", "b", "c", "d"):
        load.send(task, state="REVOKED" if task == "d" else "SUCCESS")

    def follow() -> None:
        for event in attached.poll():
            stages.take(event)

    follow()
    assert (stages.accepted, stages.backlog) == (4, 4)
    elsewhere.record("a")
    elsewhere.record("b", "FAILURE", {"exc_type": "KeyError"})
    elsewhere.record("d", "REVOKED", {})
    follow()
    assert (stages.ended, stages.failed, stages.backlog) == (3, 1, 1)
    ended = [one for one in passed if one.stage is Stage.E2E]
    assert {(one.task, one.error) for one in ended} == {("a", None), ("b", "FAILURE: KeyError"), ("d", None)}
    assert all(0 <= one.duration_s < 1 for one in ended)


def test_what_ends_while_it_settles_is_told_to_the_ledgers_listeners(
    attached: Attached, load: Load, elsewhere: Elsewhere
) -> None:
    heard: list[Event] = []
    attached.ledger.listeners.append(heard.append)
    load.send("a")
    elsewhere.record("a")
    watched: list[int] = []
    attached.settle(0, watch=lambda ledger: watched.append(ledger.sent))
    assert [event.kind for event in heard if event.task == "a"] == [Kind.INTENDED, Kind.ACCEPTED, Kind.FINISHED]
    assert watched == [1]


def test_a_look_is_bounded_and_in_turns_everything_is_seen(
    attached: Attached, load: Load, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "_CHUNK_IDS", 10)
    monkeypatch.setattr(module, "_LOOK_S", -1.0)
    tasks = [f"t-{number:03}" for number in range(45)]
    for task in tasks:
        load.send(task)
    # The first ones never end, and the others are seen all the same.
    for task in tasks[25:]:
        elsewhere.record(task)
    seen = [[event.task for event in attached.poll()] for _ in range(5)]
    assert [len(one) for one in seen] == [0, 0, 5, 10, 5]
    assert sorted(task for one in seen for task in one if task) == tasks[25:]
    elsewhere.record(tasks[0])
    load.send("late")
    elsewhere.record("late")
    assert {event.task for _ in range(4) for event in attached.poll()} == {tasks[0], "late"}


def test_after_a_look_there_is_rest(
    attached: Attached, load: Load, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1_000.0
    monkeypatch.setattr(module, "REAL", Clock(now=lambda: now_s))
    monkeypatch.setattr(module, "_LEAST_REST_S", 0.2)
    attached._rested_s = 0.0  # noqa: SLF001 - the clock was another one until now.
    load.send("a")
    assert attached.poll() == []
    elsewhere.record("a")
    now_s += 0.1
    assert attached.poll() == []
    now_s += 0.1
    assert [event.task for event in attached.poll()] == ["a"]


def test_a_database_that_does_not_answer_for_a_while_costs_nothing(
    attached: Attached, load: Load, elsewhere: Elsewhere
) -> None:
    load.send("a")
    elsewhere.record("a")
    away = elsewhere.path.rename(elsewhere.path.with_name("away"))
    assert attached.poll() == []
    away.rename(elsewhere.path)
    assert [event.task for event in attached.poll()] == ["a"]


def test_results_that_cannot_be_copied_make_the_run_unknown_and_say_why(
    attached: Attached, load: Load, elsewhere: Elsewhere
) -> None:
    load.send("a")
    elsewhere.record("a")
    assert attached.settle(0).fates[Fate.OK] == 1
    elsewhere.path.unlink()
    found = attached.settle(0)
    assert (found.verdict, found.fates[Fate.UNKNOWN]) == (Verdict.UNKNOWN, 1)
    assert {"results-not-copied", "results-unreadable"} <= codes(attached)
    (finding,) = [one for one in found.findings if one.code == "results-not-copied"]
    assert "unable to open" in finding.text


def test_effects_that_somebody_saw_are_witnessed(attached: Attached, load: Load, elsewhere: Elsewhere) -> None:
    for task in ("a", "b"):
        load.send(task, effects=[f"row:{task}"])
        elsewhere.record(task)
    assert attached.settle(0, effects=lambda: ()).fates[Fate.OK] == 2
    assert "unwitnessed-effects" in codes(attached)
    found = attached.settle(0, effects=lambda: [Effect(key="row:a", task="a")])
    assert (found.verdict, found.fates[Fate.LOST]) == (Verdict.FAIL, 1)
    assert "unwitnessed-effects" not in codes(attached)


def test_a_look_for_effects_that_crashes_is_no_pass(attached: Attached, load: Load, elsewhere: Elsewhere) -> None:
    def crash() -> Iterator[Effect]:
        yield Effect(key="row:a", task="a")
        raise KeyError("no table")

    load.send("a", effects=["row:a"])
    elsewhere.record("a")
    attached.settle(0, effects=crash)
    assert "effects-damaged" in codes(attached)


def test_what_the_scenarios_own_checks_found_counts(attached: Attached, load: Load, elsewhere: Elsewhere) -> None:
    load.send("a")
    elsewhere.record("a")
    finding = Finding(code="mine", verdict=Verdict.FAIL, count=1, text="seen")
    assert attached.settle(0, checks=lambda: [finding]).verdict is Verdict.FAIL
    assert "mine" in codes(attached)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "redis://:secret@h/0",
        "broker",
        "amqp://",
        "amqp://u:se/cret@h:5672/v",
        "amqp://u:secret@h:0/v",
        "amqp://u:p@h/v;http://u:secret@h/",
    ],
)
def test_a_url_of_no_amqp_broker_is_refused_without_a_password(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="is no URL of an AMQP broker") as caught:
        Attached(url, "sqlite:///results", RunFolder(tmp_path))
    assert "cret" not in str(caught.value)
    with pytest.raises(UsageError, match="is no URL of an AMQP broker"):
        reach(url, "sqlite:///results")


def test_a_broker_that_does_not_answer_is_an_error_without_a_password(elsewhere: Elsewhere, tmp_path: Path) -> None:
    # Nobody listens on port 1.
    url = "amqp://somebody:secret@127.0.0.1:1/shop"
    with (
        pytest.raises(BrokerError, match=r"127\.0\.0\.1:1/shop cannot be used: ConnectionRefusedError") as caught,
        Attached(url, f"sqlite:///{elsewhere.path}", RunFolder.create(tmp_path, "attached")),
    ):
        pass
    assert "secret" not in str(caught.value)


def test_whether_it_would_be_let_in_can_be_seen_before(
    elsewhere: Elsewhere, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"sqlite:///{elsewhere.path}"
    with pytest.raises(BrokerError, match="cannot be used"):
        reach("amqp://somebody:secret@127.0.0.1:1/shop", url)
    monkeypatch.setattr(attached_urls, "check_broker", lambda _: None)
    reach(BROKER_URL, url)
    with pytest.raises(ResultsError, match="unable to open"):
        reach(BROKER_URL, f"sqlite:///{tmp_path / 'nothing'}")
    assert list(tmp_path.iterdir()) == [elsewhere.path]


def test_of_a_cluster_no_node_of_which_answers_the_last_is_named(elsewhere: Elsewhere, tmp_path: Path) -> None:
    url = "amqp://somebody:secret@127.0.0.1:1/shop;amqp://somebody:secret@127.0.0.2:1/shop"
    last = r"none of 2 nodes; the last, 127\.0\.0\.2:1/shop: ConnectionRefusedError"
    with (
        pytest.raises(BrokerError, match=last) as caught,
        Attached(url, f"sqlite:///{elsewhere.path}", RunFolder.create(tmp_path, "attached")),
    ):
        pass
    assert "the broker at 127.0.0.1:1/shop;127.0.0.2:1/shop cannot be used" in str(caught.value)
    assert "secret" not in str(caught.value)


def no_file(path: Path) -> None:
    path.unlink()


def no_time(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE celery_taskmeta DROP COLUMN date_done")


@pytest.mark.parametrize(("spoil", "said"), [(no_file, "unable to open"), (no_time, "no such column: date_done")])
def test_results_that_cannot_be_read_are_an_error_at_once(
    elsewhere: Elsewhere,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
    said: str,
) -> None:
    monkeypatch.setattr(attached_urls, "check_broker", lambda _: None)
    spoil(elsewhere.path)
    with (
        pytest.raises(ResultsError, match=said),
        Attached(BROKER_URL, f"sqlite:///{elsewhere.path}", RunFolder.create(tmp_path, "attached")),
    ):
        pass


def test_a_table_that_is_not_there_yet_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attached_urls, "check_broker", lambda _: None)
    results.create(tmp_path / "new.sqlite3")
    folder = RunFolder.create(tmp_path, "attached")
    with Attached(BROKER_URL, f"sqlite:///{tmp_path / 'new.sqlite3'}", folder) as attached:
        Load(folder).send("a")
        assert attached.poll() == []
        assert attached.settle(0).fates[Fate.UNKNOWN] == 1


def test_nothing_can_be_sent_before_it_is_attached_or_after(elsewhere: Elsewhere, attached: Attached) -> None:
    del elsewhere
    assert attached.producer
    attached.close()
    with pytest.raises(UsageError, match="use it as `with Attached"):
        _ = attached.producer
