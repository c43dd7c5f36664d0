"""A rolling deploy: how a worker is stopped, what a run means, and which grace period is the shortest."""

import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from harness.audit.audit import Audit
from harness.audit.run_folder import RunFolder
from harness.containers.engine import NodeSpec
from harness.containers.node import Node
from harness.errors import EngineError, WaitTimeout
from harness.records.event import Kind
from harness.records.expectation import Promise
from harness.records.journal import Writer
from harness.records.rehearsal import Rehearsal, Rehearsed, Replaced
from harness.records.verdict import Fate, Finding, Verdict
from harness.running import deploying, rehearse
from harness.stack.stack import Stack
from harness.wait import wait_until
from tests.fakes.container import FakeContainer, Program, Reaction, fake_engine

FOLDER = RunFolder(path=Path("runs/one"))


@pytest.fixture
def stack(tmp_path: Path) -> Stack:
    return cast("Stack", SimpleNamespace(folder=RunFolder.create(tmp_path, "run")))


def worker(program: Program, name: str = "worker-1") -> tuple[Node, FakeContainer]:
    engine = fake_engine()
    node = Node(engine, NodeSpec(name=name, image="image"))
    node.start()
    box = cast("FakeContainer", node.container)
    box.program = program
    return node, box


def busy(stack: Stack) -> Writer:
    """Return the journal of worker-1, which runs a task."""
    journal = Writer(stack.folder.journal, node="worker-1", role="worker")
    journal.write(Kind.UP)
    journal.write(Kind.RECEIVED, "a")
    journal.write(Kind.STARTED, "a")
    return journal


def test_a_worker_that_ends_its_task_is_not_killed(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = busy(stack)
    prepared, signalled = list[float](), list[float]()

    def first_process(_command: Sequence[str]) -> str:
        prepared.append(time.time())
        return "celery worker"

    node, box = worker(Program(executes=first_process))
    kill = box.kill

    def ends(name: str) -> None:
        signalled.append(time.time())
        journal.write(Kind.FINISHED, "a", state="SUCCESS")
        box._lines.append("worker: Warm shutdown (MainProcess)")  # noqa: SLF001 - what Celery says then.
        kill(name)

    monkeypatch.setattr(box, "kill", ends)
    asked_t, one = deploying.stop(stack, node, 10.0, threading.Event())
    assert (one.node, one.first_process, one.heard, one.was_killed, one.begun, one.cut) == (
        "worker-1",
        "celery worker",
        True,
        False,
        1,
        (),
    )
    assert not one.is_deaf
    # What is looked up before the signal takes long, and is no part of what the worker needs to end.
    assert prepared[0] < asked_t <= signalled[0]


def test_a_worker_behind_a_shell_never_hears_and_is_killed_with_its_task(stack: Stack) -> None:
    busy(stack)
    node, box = worker(Program(executes=lambda _: "sh -c celery", reacts={"SIGTERM": Reaction()}))
    _, one = deploying.stop(stack, node, 0.0, threading.Event())
    assert (one.heard, one.was_killed, one.cut, one.is_deaf) == (False, True, ("a",), True)
    assert one.exit_code == 128 + signal.SIGKILL == box.now.exit_code


class Load:
    """In the place of a `SteadyLoad` that waits for ever, if it is to wait."""

    given_up = 0
    busy = 2
    is_exhausted = False
    last_taken_t = last_refused_t = last_begun_t = 0.0

    def wait_for(self, more: int, timeout_s: float) -> None:
        raise WaitTimeout(f"{more} more: not within {timeout_s:g} s.")


def changing(stack: Stack, *workers: Node) -> deploying.Deploying:
    """Return a deploy that goes on with some workers."""
    stack_ = cast("Any", SimpleNamespace(folder=stack.folder, workers=workers))
    return deploying.Deploying(stack_, cast("Any", Load()), begin_t=100.0)


def test_one_worker_is_waited_for_where_an_interrupt_is_seen(stack: Stack) -> None:
    seen = []

    def interrupted(_command: Sequence[str]) -> str:
        seen.append(threading.current_thread())
        raise KeyboardInterrupt

    node, _ = worker(Program(executes=interrupted))
    with pytest.raises(KeyboardInterrupt):
        changing(stack, node).end([node], 600.0)
    assert seen == [threading.main_thread()]


def test_who_gives_up_does_not_wait_for_the_grace_of_the_other_workers(stack: Stack) -> None:
    deaf, box = worker(Program(executes=lambda _: "sh", reacts={"SIGTERM": Reaction()}), "worker-2")

    def fails(_command: Sequence[str]) -> str:
        wait_until(lambda: "kill with SIGTERM" in box.done, what="the other one is asked", timeout_s=30)
        raise EngineError("the engine does not answer.")

    broken, _ = worker(Program(executes=fails))
    with pytest.raises(EngineError, match="does not answer"):
        changing(stack, broken, deaf).end([broken, deaf], 5.0)
    # Whoever waits out the grace period kills it then.
    assert "kill" not in box.done


def test_workers_that_are_stopped_took_tasks_until_each_was_asked_itself(stack: Stack) -> None:
    nodes, boxes = zip(*(worker(Program(executes=lambda _: "c"), f"worker-{n}") for n in (1, 2)), strict=True)
    goes_on = changing(stack, *nodes)
    for box in boxes:
        box._lines.append("worker: Warm shutdown (MainProcess)")  # noqa: SLF001 - what Celery says then.
    before_t = time.time()
    goes_on.end(nodes, 10.0)
    assert [one.node for one in goes_on.replaced] == ["worker-1", "worker-2"]
    assert goes_on.alive == []
    assert all(begin == 100.0 and before_t < end <= time.time() for begin, end in goes_on.spans(0.0))


@pytest.mark.parametrize(
    ("taken_s", "refused_s", "begun_s", "verdict", "seen"),
    [
        (-1, 60, -1, Verdict.FAIL, "the broker refused every task in the"),
        (-1, 60, 60, Verdict.FAIL, "the broker refused every task in the"),
        (60, 60, -1, Verdict.FAIL, "no task began in the"),
        (-1, -1, -1, Verdict.FAIL, "no task began in the"),
        # All workers are busy with what takes long, so that nothing more was sent.
        (-1, -1, 60, Verdict.UNKNOWN, "fewer than 6 tasks ended within 120 s"),
        (60, 60, 60, Verdict.UNKNOWN, "fewer than 6 tasks ended within 120 s"),
    ],
)
def test_a_load_that_stalls_is_one_finding(
    stack: Stack, taken_s: float, refused_s: float, begun_s: float, *, verdict: Verdict, seen: str
) -> None:
    goes_on = changing(stack)
    goes_on.if_dead = Verdict.FAIL
    load, now_t = goes_on.load, time.time()
    load.last_taken_t, load.last_refused_t = now_t + taken_s, now_t + refused_s
    load.last_begun_t = now_t + begun_s
    goes_on.make(lambda one: one.stay(3))
    (finding,) = goes_on.findings
    assert (finding.code, finding.verdict) == ("load-stalled", verdict)
    assert finding.text.startswith(seen)


def test_a_deploy_after_which_no_task_begins_is_not_known_to_be_right(stack: Stack) -> None:
    goes_on = changing(stack)
    goes_on.make(lambda _: None)
    assert [(one.code, one.verdict) for one in goes_on.findings] == [("load-stalled", Verdict.UNKNOWN)]
    goes_on = changing(stack)
    goes_on.load.last_taken_t = goes_on.load.last_begun_t = time.time() + 60
    goes_on.make(lambda _: None)
    assert goes_on.findings == []


def test_a_deploy_that_has_no_broker_any_more_waits_for_nothing(stack: Stack) -> None:
    def halts(_: deploying.Deploying) -> None:
        raise deploying.HaltError

    goes_on = changing(stack)
    begin_t, end_t = goes_on.make(halts)
    assert goes_on.is_halted
    assert begin_t <= end_t
    assert goes_on.findings == []


def test_a_stack_that_has_no_broker_any_more_is_audited_with_what_was_found(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run")
    folder.write("run.json", {"name": "run", "nodes": [], "promise": Promise().to_json()})
    found = Finding(code="broker-not-back", verdict=Verdict.FAIL, count=1, text="it did not start again")
    audited = deploying._audited_as_it_is(folder, [found])  # noqa: SLF001 - a stack is needed for what calls it.
    run = deploying.rehearsed("t", folder, audited)
    assert run.verdict is Verdict.FAIL
    assert "broker-not-back: it did not start again." in run.findings
    assert Audit.from_json(folder.read("audit.json")).verdict is Verdict.FAIL


def replaced(*cut: str, heard: bool = True, was_killed: bool = False) -> Replaced:
    return Replaced(
        node="worker-1",
        first_process="sh",
        heard=heard,
        was_killed=was_killed,
        exit_code=0,
        took_s=1.0,
        begun=2,
        cut=cut,
    )


def audit(*findings: Finding, **fates: int) -> Audit:
    counts = {fate: fates.get(fate.value, 0) for fate in Fate}
    return Audit(
        name="run", entries=9, fates=counts, findings=findings, e2e_ms={}, workers={}, memory_mb={}, witnesses={}
    )


@pytest.mark.parametrize(
    ("audited", "workers", "verdict"),
    [
        (audit(), [replaced()], Verdict.PASS),
        # It had no task any more, and took long to end.
        (audit(), [replaced(was_killed=True)], Verdict.PASS),
        (audit(), [replaced("a", was_killed=True)], Verdict.FAIL),
        (audit(), [replaced(heard=False, was_killed=True)], Verdict.FAIL),
        (audit(Finding(code="lost", verdict=Verdict.FAIL, count=1, text="x")), [replaced()], Verdict.FAIL),
        (audit(Finding(code="x", verdict=Verdict.UNKNOWN, count=1, text="x")), [replaced()], Verdict.UNKNOWN),
    ],
)
def test_a_deploy_is_right_if_it_keeps_the_promise_and_cuts_no_task(
    audited: Audit, workers: Sequence[Replaced], verdict: Verdict
) -> None:
    assert deploying.rehearsed("t", FOLDER, audited, workers).verdict is verdict


def test_what_became_of_the_tasks_is_counted() -> None:
    findings = [
        Finding(code="ran-again", verdict=Verdict.PASS, count=4, text="x"),
        Finding(code="had-again", verdict=Verdict.PASS, count=2, text="x"),
        Finding(code="failed-unexpectedly", verdict=Verdict.FAIL, count=1, text="one failed."),
    ]
    run = deploying.rehearsed("t", FOLDER, audit(*findings, lost=1, duplicated=1, failed=5, wrong=1, pending=3))
    assert (run.lost, run.ran_again, run.doubled, run.failed, run.pending) == (1, 4, 3, 2, 3)
    assert run.findings == ("failed-unexpectedly: one failed.",)
    assert run.folder == "one"


def run(longest_s: float | None = 3.2, *workers: Replaced) -> Rehearsed:
    one = deploying.rehearsed("t", FOLDER, audit(), workers or [replaced()])
    return Rehearsed(**{**vars(one), "longest_s": longest_s, "longest_task": "pay"})


def test_the_shortest_grace_is_that_of_the_longest_task_and_is_proven() -> None:
    asked = []

    def run_with(grace_s: float) -> Rehearsed:
        asked.append(grace_s)
        return run()

    rehearsal = rehearse.with_proof(run(), Rehearsal(name="shop", what="rolling"), run_with)
    assert (asked, rehearsal.shortest_grace_s, rehearsal.is_proven) == ([4], 4, True)


def test_a_grace_that_cuts_a_task_all_the_same_is_followed_by_a_longer_one() -> None:
    asked = []

    def run_with(grace_s: float) -> Rehearsed:
        asked.append(grace_s)
        return run(3.2, replaced("long")) if grace_s < 9 else run(8.1)

    rehearsal = rehearse.with_proof(run(), Rehearsal(name="shop", what="rolling"), run_with)
    assert (asked, rehearsal.shortest_grace_s, rehearsal.is_proven) == ([4, 8, 16], 16, True)


def test_a_grace_that_never_suffices_is_not_proven() -> None:
    rehearsal = rehearse.with_proof(run(), Rehearsal(name="s", what="rolling"), lambda _: run(3.2, replaced("a")))
    assert rehearsal.is_proven is False


@pytest.mark.parametrize("first", [run(None), run(3.2, replaced(heard=False, was_killed=True))])
def test_no_grace_helps_where_none_is_heard_or_no_task_ended(first: Rehearsed) -> None:
    def never(_grace_s: float) -> Rehearsed:
        raise AssertionError("there is nothing to prove")

    rehearsal = rehearse.with_proof(first, Rehearsal(name="shop", what="rolling"), never)
    assert (rehearsal.shortest_grace_s, rehearsal.is_proven, rehearsal.proof) == (None, None, None)
