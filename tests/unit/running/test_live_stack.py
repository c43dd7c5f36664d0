"""What the page of a stack shows of it and does to it: with a stack of fakes, on a real journal."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from harness.audit.run_folder import RunFolder
from harness.containers.broker_node import QueueCount
from harness.containers.engine import State, Status
from harness.errors import BrokerError, EngineError, UsageError
from harness.producer import Sent
from harness.records.event import Event, Kind
from harness.records.expectation import Promise
from harness.records.journal import Writer
from harness.records.moment import Moment
from harness.running.first_step import FIRST_STEPS
from harness.running.live_stack import Do, LiveStack, Order
from harness.running.live_tasks import LatestTasks
from harness.stack.holds import Holds

if TYPE_CHECKING:
    from harness.faults.kill import Kill
    from harness.stack.stack import Stack


class Node:
    """A node that is in a state, and that can be started."""

    def __init__(self, name: str, status: Status = Status.RUNNING) -> None:
        """Set name and state."""
        self.name, self.status = name, status
        self.done: list[str] = []
        self.container = self

    def state(self) -> State:
        return State(status=self.status)

    def is_up(self) -> bool:
        return self.status is Status.RUNNING

    def start(self) -> None:
        self.done.append("start")

    def wait_ready(self) -> None:
        self.done.append("wait_ready")


class Broker(Node):
    """A broker with one queue."""

    is_silent = False

    def queues(self, vhost: str) -> list[QueueCount]:
        if self.is_silent:
            raise BrokerError("it does not answer.")
        return [QueueCount(name=f"{vhost}-queue", ready=2, unacked=1)]


class World:
    """A stack of fakes."""

    def __init__(self, path: Path) -> None:
        """Make the run folder and the nodes."""
        self.folder = RunFolder.create(path, "up")
        self.folder.write("run.json", {"name": "up"})
        self.broker = Broker("broker")
        self.workers = [Node("worker-1"), Node("worker-2", Status.EXITED)]
        self.login = SimpleNamespace(vhost="v")
        self.spec = SimpleNamespace(app="shop.app")
        self.producer = self
        self.web = self
        self.sent: list[tuple[Any, ...]] = []
        self.outcome = Kind.ACCEPTED
        self.faults: list[Kill] = []
        self.holds = Holds(self.folder.path)

    def nodes(self) -> list[Node]:
        return self.workers

    def send(self, *what: Any) -> Sent:
        self.sent.append(what)
        return Sent(task=f"t-{len(self.sent)}", outcome=self.outcome, reason="it is full")

    def post(self, path: str, body: Any) -> tuple[int, str]:
        self.sent.append((path, body))
        return 202, "accepted"

    def inject(self, fault: "Kill") -> "Kill":
        self.faults.append(fault)
        return fault

    def hold(self, name: str | None, moment: Moment) -> Any:
        return self.holds.hold(name, moment)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.holds.close()


@pytest.fixture
def live(world: World) -> LiveStack:
    return LiveStack(cast("Stack", world), FIRST_STEPS["scenarios.web"])


def test_it_shows_nodes_queues_counts_and_the_tasks_that_workers_know(live: LiveStack, world: World) -> None:
    worker = Writer(world.folder.journal, node="worker-1", role="worker")
    worker.write(Kind.SETTINGS, tasks=["shop.pay", "shop.mail"])
    worker.write(Kind.INTENDED, "t-1", name="shop.pay")
    worker.write(Kind.STARTED, "t-1", name="shop.pay")
    worker.close()
    view = live.view()
    assert [(one.name, one.state, one.is_worker) for one in view.nodes] == [
        ("broker", "running", False),
        ("worker-1", "running", True),
        ("worker-2", "exited", True),
    ]
    assert [(one.name, one.ready, one.unacked) for one in view.queues] == [("v-queue", 2, 1)]
    assert (view.sent, view.ended, view.running, view.names) == (1, 0, 1, ("shop.mail", "shop.pay"))
    assert [(one.task, one.state, one.node) for one in view.tasks] == [("t-1", "running", "worker-1")]
    assert view.notes == ()
    page = live.page({"RabbitMQ": "http://127.0.0.1:1"}, "the-token")
    assert "Send a receipt" in page
    assert '"token":"the-token"' in page


def test_what_does_not_answer_is_told_and_the_rest_is_shown(
    live: LiveStack, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Node) -> State:
        raise EngineError("no engine.")

    world.broker.is_silent = True
    monkeypatch.setattr(Node, "state", broken)
    view = live.view()
    assert view.notes == (
        *(f"{name}: no engine." for name in ("broker", "worker-1", "worker-2")),
        "the broker: it does not answer.",
    )
    assert {one.state for one in view.nodes} == {"unknown"}


def test_a_view_is_kept_for_a_moment_so_that_many_pages_cost_as_much_as_one(
    live: LiveStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr("harness.running.live_stack.REAL", SimpleNamespace(now=lambda: now[0]))
    first = live.view()
    assert live.view() is first
    now[0] = 1.0
    assert live.view() is not first


def test_the_report_is_that_of_the_run_folder(live: LiveStack, world: World) -> None:
    world.folder.write("run.json", {"name": "up", "promise": Promise().to_json(), "nodes": []})
    assert "<h1>Unknown: no task was sent" in live.report()


def test_tasks_are_sent_with_what_the_page_says(live: LiveStack, world: World) -> None:
    said = live.do(Order(do=Do.SEND, name="shop.pay", args="[3]", kwargs='{"a": 1}'))
    assert (said, world.sent) == ("Sent shop.pay: t-1", [("shop.pay", [3], {"a": 1})])
    assert live.do(Order(do=Do.SEND, name="shop.pay", count=3)) == "Sent 3 times shop.pay."
    assert live.do(Order(do=Do.FIRST)) == "The web producer answered 202: accepted"
    assert world.sent[-1][0] == "/emails"


def test_a_worker_is_killed_and_comes_back(live: LiveStack, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert live.do(Order(do=Do.KILL, node="worker-1")).startswith("worker-1 was killed.")
    (fault,) = world.faults
    assert fault.wanted == "worker-1"
    healed: list[str] = []
    monkeypatch.setattr(fault, "heal", lambda: healed.append("worker-1"))
    assert live.do(Order(do=Do.START, node="worker-1")) == "worker-1 is back."
    assert healed == ["worker-1"]
    # One that has ended by itself is started, too.
    assert live.do(Order(do=Do.START, node="worker-2")) == "worker-2 is back."
    assert world.workers[1].done == ["start", "wait_ready"]


def test_a_task_is_held_and_let_go(live: LiveStack, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("harness.running.live_stack.REAL", SimpleNamespace(now=lambda: now[0]))
    assert live.do(Order(do=Do.HOLD, moment=Moment.STORED)) == "The next task that is stored is held there."
    (shown,) = live.view().holds
    assert (shown.whom, shown.moment, shown.held) == ("any task", "stored", "")
    passed = threading.Thread(target=world.holds.reach, args=(Moment.STORED, "t-1", "shop.pay"), daemon=True)
    passed.start()
    with world.holds.changed:
        world.holds.changed.wait_for(lambda: bool(world.holds.seen), 20)
    now[0] = 1.0
    assert live.view().holds[0].held == "t-1 on producer"
    assert live.do(Order(do=Do.LET_GO, hold=1)) == "It goes on."
    passed.join(20)
    assert not passed.is_alive()
    now[0] = 2.0
    assert live.view().holds == ()


def test_a_task_that_is_held_while_the_stack_is_looked_at_is_shown_with_the_next_look_like_its_line_in_the_journal(
    live: LiveStack, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, ask = [0.0], world.broker.queues
    monkeypatch.setattr("harness.running.live_stack.REAL", SimpleNamespace(now=lambda: now[0]))
    live.do(Order(do=Do.HOLD, moment=Moment.STARTED))
    passed = threading.Thread(target=world.holds.reach, args=(Moment.STARTED, "t-1", "shop.pay"), daemon=True)

    def begins_meanwhile(vhost: str) -> list[QueueCount]:
        if not world.holds.seen:
            passed.start()
            with world.holds.changed:
                world.holds.changed.wait_for(lambda: bool(world.holds.seen), 20)
        return ask(vhost)

    monkeypatch.setattr(world.broker, "queues", begins_meanwhile)
    assert live.view().holds[0].held == ""
    now[0] = 1.0
    assert live.view().holds[0].held == "t-1 on producer"
    live.do(Order(do=Do.LET_GO, hold=1))
    passed.join(20)


@pytest.mark.parametrize(
    ("order", "seen"),
    [
        (Order(do=Do.SEND, name="typo"), "no worker knows the task 'typo'; there are shop.pay."),
        (Order(do=Do.SEND, name="shop.pay", args="{}"), "{} is not an array"),
        (Order(do=Do.SEND, name="shop.pay", kwargs="[]"), "[] is not an object"),
        (Order(do=Do.SEND, name="shop.pay", args="x"), "x is no JSON"),
        (Order(do=Do.SEND, name="shop.pay", args="[" * 50_000), "is no JSON"),
        (Order(do=Do.SEND, name="shop.pay", count=0), "0 tasks cannot be sent at once"),
        (Order(do=Do.SEND, name="shop.pay", count=10**9), "tasks cannot be sent at once"),
        (Order(do=Do.KILL, node="worker-9"), "there is no worker 'worker-9'; there are worker-1, worker-2."),
        (Order(do=Do.KILL, node="broker"), "there is no worker 'broker'"),
        (Order(do=Do.START, node="../web"), "there is no worker"),
        (Order(do=Do.START, node="worker-1"), "worker-1 runs already."),
        (Order(do=Do.HOLD, moment=Moment.SENDING), "holds no task at 'sending'"),
        (Order(do=Do.LET_GO, hold=1), "there is no hold 1"),
        (Order(do=Do.KILL_HELD, hold=-1), "there is no hold -1"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    live: LiveStack, world: World, order: Order, seen: str
) -> None:
    worker = Writer(world.folder.journal, node="worker-1", role="worker")
    worker.write(Kind.SETTINGS, tasks=["shop.pay"])
    worker.close()
    with pytest.raises(UsageError) as error:
        live.do(order)
    assert seen in str(error.value)
    assert (world.sent, world.faults, [one.done for one in world.workers]) == ([], [], [[], []])


def test_what_the_broker_does_not_take_is_an_error(live: LiveStack, world: World) -> None:
    world.outcome = Kind.REFUSED
    with pytest.raises(BrokerError, match="0 of 2 were accepted, then none was sent any more; refused: it is full"):
        live.do(Order(do=Do.SEND, name="shop.pay", count=2))


def test_after_one_that_is_not_accepted_nothing_more_is_sent(
    live: LiveStack, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = world.send

    def once(*what: Any) -> Sent:
        sent = send(*what)
        world.outcome = Kind.UNKNOWN if len(world.sent) == 2 else Kind.ACCEPTED
        return sent

    monkeypatch.setattr(world, "send", once)
    with pytest.raises(BrokerError, match="2 of 1000 were accepted"):
        live.do(Order(do=Do.SEND, name="shop.pay", count=1_000))
    assert len(world.sent) == 3


def test_an_order_of_many_stops_when_the_stack_is_taken_down(
    live: LiveStack, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    send, lock, is_awaited = world.send, live._ordering, threading.Event()  # noqa: SLF001 - what the end waits for.

    class Watched:
        """The lock, which tells when the end begins to wait for it."""

        def acquire(self, *, timeout: float) -> bool:
            is_awaited.set()
            return lock.acquire(timeout=timeout)

        def release(self) -> None:
            lock.release()

        def __enter__(self) -> bool:
            return lock.acquire(timeout=20)

        def __exit__(self, *_: object) -> None:
            lock.release()

    monkeypatch.setattr(live, "_ordering", Watched())
    ending = threading.Thread(target=live.end, daemon=True)

    def slow(*what: Any) -> Sent:
        if len(world.sent) == 4:
            ending.start()
            assert is_awaited.wait(20)
        return send(*what)

    monkeypatch.setattr(world, "send", slow)
    with pytest.raises(UsageError, match="5 of 1000 were sent: the stack is being taken down"):
        live.do(Order(do=Do.SEND, name="shop.pay", count=1_000))
    ending.join(20)
    assert (len(world.sent), ending.is_alive()) == (5, False)


def test_holds_are_bounded_and_one_that_waits_has_no_process_to_kill(live: LiveStack) -> None:
    for _ in range(20):
        live.do(Order(do=Do.HOLD))
    with pytest.raises(UsageError, match="let some go"):
        live.do(Order(do=Do.HOLD))
    with pytest.raises(UsageError, match="no task is held there yet"):
        live.do(Order(do=Do.KILL_HELD, hold=1))
    live.do(Order(do=Do.LET_GO, hold=1))
    live.do(Order(do=Do.HOLD))


def test_at_the_end_a_running_order_is_waited_for_and_no_other_is_taken(
    live: LiveStack, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()
    told: list[str] = []

    def slow(*_: Any) -> tuple[int, str]:
        begun.set()
        may_end.wait(20)
        return 202, "at last"

    monkeypatch.setattr(world, "post", slow)
    order = threading.Thread(target=lambda: told.append(live.do(Order(do=Do.FIRST))), daemon=True)
    order.start()
    assert begun.wait(20)

    def end() -> None:
        live.end()
        told.append("end")

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    assert told == []
    may_end.set()
    for thread in (order, ending):
        thread.join(20)
    assert sorted(told) == ["The web producer answered 202: at last", "end"]
    with pytest.raises(UsageError, match="is being taken down"):
        live.do(Order(do=Do.FIRST))


def test_an_end_that_has_waited_in_vain_is_not_repeated(
    live: LiveStack, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    class Taken:
        """A lock that an order has and keeps."""

        def acquire(self, *, timeout: float) -> bool:
            waits.append(timeout)
            return False

    monkeypatch.setattr(live, "_ordering", Taken())
    live.end()
    live.end()
    assert (len(waits), world.sent) == (1, [])


# ------------------------------------------------------------------------------------------------- the latest tasks


def event(kind: Kind, t: float, task: str = "a", node: str = "worker-1", **data: Any) -> Event:
    return Event(kind=kind, t=t, n=1, node=node, pid=1, task=task, data=data)


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "sending"),
        ([event(Kind.ACCEPTED, 2)], "sent"),
        ([event(Kind.REFUSED, 2)], "refused"),
        ([event(Kind.RECEIVED, 2)], "received"),
        ([event(Kind.STARTED, 2), event(Kind.ACCEPTED, 3)], "running"),
        ([event(Kind.STARTED, 2), event(Kind.FINISHED, 3, state="SUCCESS")], "SUCCESS"),
        ([event(Kind.FINISHED, 3, state="FAILURE"), event(Kind.STARTED, 2)], "FAILURE"),
        ([event(Kind.STARTED, 2), event(Kind.RETRIED, 3)], "to run again"),
        ([event(Kind.REVOKED, 3)], "revoked"),
        ([event(Kind.COMMITTED, 3)], "sending"),
        ([event(Kind.STARTED, 2, task="b")], "sending"),
    ],
)
def test_a_task_is_in_the_state_that_was_said_of_it_last(events: list[Event], state: str) -> None:
    latest = LatestTasks()
    for one in (event(Kind.INTENDED, 1, node="producer", name="shop.pay"), *events):
        latest.take(one)
    (task,) = latest.tasks()
    assert (task.name, task.state, task.sent_t) == ("shop.pay", state, 1)
    json.dumps(task.to_json())


def test_only_the_latest_are_kept_and_an_execution_is_counted() -> None:
    latest = LatestTasks()
    for number in range(150):
        latest.take(event(Kind.INTENDED, number, task=str(number), name="a"))
    for _ in range(2):
        latest.take(event(Kind.STARTED, 200, task="149"))
    # A retry is sent under the same id.
    latest.take(event(Kind.INTENDED, 201, task="149", name="a"))
    tasks = latest.tasks()
    assert [one.task for one in tasks[:2]] == ["149", "148"]
    assert (len(tasks), tasks[0].starts) == (100, 2)
