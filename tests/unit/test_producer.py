"""The producer: what it journals and when it gives up. Confirms need a broker; they are tested with one."""

import json
import math
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import amqp
import kombu
import pytest

from harness.broker_connection import Link, connect
from harness.errors import UsageError
from harness.producer import Producer, Sent
from harness.records import journal
from harness.records.event import Kind
from harness.records.expectation import Expect
from harness.records.journal import Writer
from harness.records.moment import Moment
from harness.records.route import Route, Routes

TIMEOUT_S = 0.2
BOUND_S = 5.0
"""Far above the time-out, for a machine that is busy; far below any default of the libraries."""
QUEUE = "of-the-producers-tests"

Make = Callable[[str], Producer]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "journal"
    folder.mkdir()
    return folder


@pytest.fixture
def make(folder: Path) -> Iterator[Make]:
    with closing(Writer(folder, node="producer", role="producer")) as writer:
        yield lambda url: Producer(url, writer, timeout_s=TIMEOUT_S)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Yield a server that accepts connections and sends nothing: the kernel accepts them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def connect_to_memory(producer: Producer) -> None:
    connection = kombu.Connection("memory://")
    sender = producer._app.amqp.Producer(connection, auto_declare=False)  # noqa: SLF001 - the app is its own.
    # A queue in memory is there as soon as something is sent to it.
    link = Link(connection, sender, found={"celery", QUEUE})
    producer._idle.append(link)  # noqa: SLF001 - by itself it connects to nothing but AMQP.


@pytest.fixture
def in_memory(make: Make) -> Iterator[Producer]:
    """Yield a producer that is already connected to a broker in memory, which takes everything and confirms nothing."""
    with closing(make("amqp://127.0.0.1:1//")) as producer:
        connect_to_memory(producer)
        yield producer
    # The queues of all connections in this process's memory are the same.
    with kombu.Connection("memory://") as connection, connection.SimpleQueue(QUEUE) as queue:
        queue.clear()


def url(port: int) -> str:
    return f"amqp://user:password@127.0.0.1:{port}/vhost"


def said(folder: Path) -> list[tuple[Kind, str | None, dict[str, Any]]]:
    _, *events = journal.read(folder)
    return [(event.kind, event.task, dict(event.data)) for event in events]


def test_where_nobody_listens_a_task_is_refused_at_once(make: Make, free_port: int, folder: Path) -> None:
    sent = make(url(free_port)).send("pay", task_id="t-1")
    assert (sent.task, sent.outcome, sent.accepted) == ("t-1", Kind.REFUSED, False)
    assert sent.reason
    assert sent.reason.startswith("no connection: ConnectionRefusedError")
    assert said(folder) == [
        (Kind.INTENDED, "t-1", {"name": "pay"}),
        (Kind.REFUSED, "t-1", {"reason": sent.reason}),
    ]


@pytest.mark.parametrize(
    ("outcome", "moments"),
    [(Kind.ACCEPTED, [Moment.SENDING, Moment.PUBLISHED]), (Kind.REFUSED, [Moment.SENDING])],
)
def test_a_task_comes_by_its_moments_as_far_as_it_gets(
    folder: Path, free_port: int, outcome: Kind, moments: list[Moment]
) -> None:
    reached: list[Moment] = []

    def reach(moment: Moment, task: str, name: str) -> None:
        assert (task, name) == ("t-1", "pay")
        reached.append(moment)

    with (
        closing(Writer(folder, node="producer", role="producer")) as writer,
        closing(Producer(url(free_port), writer, timeout_s=TIMEOUT_S, reach=reach)) as producer,
    ):
        if outcome is Kind.ACCEPTED:
            connect_to_memory(producer)
        assert producer.send("pay", task_id="t-1").outcome is outcome
    assert reached == moments


@pytest.mark.parametrize(
    ("outcome", "reason", "told"),
    [
        (Kind.ACCEPTED, None, {"confirmed": True}),
        (Kind.UNKNOWN, "no confirm", {"reason": "no confirm"}),
    ],
)
def test_in_whatever_way_a_producer_publishes_the_outcome_is_journaled(
    folder: Path, outcome: Kind, reason: str | None, told: dict[str, Any]
) -> None:
    class Other(Producer):
        """Publishes to nobody, as the load test publishes in a way of its own."""

        def _publish(self, task: str, *_: Any) -> Sent:
            return Sent(task=task, outcome=outcome, reason=reason)

    with closing(Writer(folder, node="producer", role="producer")) as writer:
        Other("amqp://127.0.0.1:1//", writer).send("pay", task_id="t-1")
    assert said(folder) == [(Kind.INTENDED, "t-1", {"name": "pay"}), (outcome, "t-1", told)]


def test_a_broker_that_says_nothing_is_given_up_in_time(make: Make, listener: socket.socket, folder: Path) -> None:
    begun_s = time.monotonic()
    sent = make(url(listener.getsockname()[1])).send("pay")
    assert TIMEOUT_S <= time.monotonic() - begun_s < BOUND_S
    assert sent == Sent(task=sent.task, outcome=Kind.REFUSED, reason="no connection: TimeoutError: timed out")
    assert [kind for kind, _, _ in said(folder)] == [Kind.INTENDED, Kind.REFUSED]


class Nodes:
    """A cluster without a network: what each of its nodes says to whoever connects."""

    def __init__(self, **says: Exception | None) -> None:
        """By host; None lets everybody in."""
        self.says = says
        self.asked: list[tuple[str, float]] = []
        self.collected: list[str] = []

    def connection(self, url: str, *, connect_timeout: float, **_: Any) -> "Node":
        return Node(self, url.rpartition("@")[2].partition(":")[0], connect_timeout)


class Node:
    """One connection to one of them."""

    def __init__(self, nodes: Nodes, host: str, timeout_s: float) -> None:
        """Not connected yet."""
        self.nodes, self.host, self.timeout_s = nodes, host, timeout_s

    def ensure_connection(self, *, max_retries: int) -> None:
        assert max_retries == 0
        self.nodes.asked.append((self.host, self.timeout_s))
        if (error := self.nodes.says[self.host]) is not None:
            raise error

    def collect(self) -> None:
        self.nodes.collected.append(self.host)


CLUSTER = ";".join(f"amqp://user:password@{host}:5672/vhost" for host in "abc")
GONE = ConnectionRefusedError("gone")
STRANGER = amqp.exceptions.AccessRefused("no such user")


@pytest.mark.parametrize(
    ("says", "host", "asked"),
    [
        ({"a": None, "b": None, "c": None}, "a", "a"),
        ({"a": GONE, "b": None, "c": None}, "b", "ab"),
        ({"a": STRANGER, "b": TimeoutError("timed out"), "c": None}, "c", "abc"),
    ],
)
def test_the_nodes_of_a_cluster_are_tried_in_order_until_one_lets_in(
    monkeypatch: pytest.MonkeyPatch, says: Mapping[str, Exception | None], host: str, asked: str
) -> None:
    nodes = Nodes(**says)
    monkeypatch.setattr(kombu, "Connection", nodes.connection)
    assert connect(CLUSTER, 3.0).host == host
    assert nodes.asked == [(one, 3.0) for one in asked]
    assert nodes.collected == [one for one in asked if one != host]


def test_where_no_node_lets_in_each_was_tried_once_and_the_last_is_named(
    monkeypatch: pytest.MonkeyPatch, make: Make, folder: Path
) -> None:
    nodes = Nodes(a=GONE, b=STRANGER, c=TimeoutError("timed out"))
    monkeypatch.setattr(kombu, "Connection", nodes.connection)
    sent = make(CLUSTER).send("pay")
    assert nodes.asked == [(one, TIMEOUT_S) for one in "abc"]
    assert nodes.collected == ["a", "b", "c"]
    reason = "no connection: none of 3 nodes; the last, c:5672/vhost: TimeoutError: timed out"
    assert sent == Sent(task=sent.task, outcome=Kind.REFUSED, reason=reason)
    assert [kind for kind, _, _ in said(folder)] == [Kind.INTENDED, Kind.REFUSED]


def test_what_is_no_trouble_with_a_node_is_not_taken_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes(a=ValueError("a defect"), b=None, c=None)
    monkeypatch.setattr(kombu, "Connection", nodes.connection)
    with pytest.raises(ValueError, match="a defect"):
        connect(CLUSTER, 3.0)
    assert (nodes.asked, nodes.collected) == ([("a", 3.0)], ["a"])


def test_each_send_tries_again_to_connect(make: Make, free_port: int, folder: Path) -> None:
    producer = make(url(free_port))
    outcomes = [producer.send("pay").outcome for _ in range(2)]
    assert outcomes == [Kind.REFUSED, Kind.REFUSED]
    assert len({task for _, task, _ in said(folder)}) == 2


def test_the_intent_says_what_is_expected_and_when_the_task_is_due(make: Make, free_port: int, folder: Path) -> None:
    expect = Expect(result={"ok": True}, effects=["mail:1"])
    before_s = time.time()
    make(url(free_port)).send("pay", expect=expect, countdown_s=60)
    (_, _, intent), _ = said(folder)
    assert before_s + 60 <= intent.pop("due") <= time.time() + 60
    assert intent == {"name": "pay", "expect": {"result": {"ok": True}}, "effects": ["mail:1"]}


def test_the_intent_names_the_queue_unless_it_is_celerys_own(in_memory: Producer, folder: Path) -> None:
    in_memory.send("pay", queue=QUEUE)
    in_memory.send("pay")
    intents = [data for kind, _, data in said(folder) if kind is Kind.INTENDED]
    assert [intent.get("queue") for intent in intents] == [QUEUE, None]


def test_the_intent_says_when_the_task_expires_as_the_message_does(in_memory: Producer, folder: Path) -> None:
    before_s = time.time()
    assert in_memory.send("pay", countdown_s=60, expires_s=90, queue=QUEUE).accepted
    (_, _, intent), _ = said(folder)
    # The message has microseconds, and they are rounded.
    assert before_s + 90 - 1e-6 <= intent["expires"] <= time.time() + 90
    with kombu.Connection("memory://") as connection, connection.SimpleQueue(QUEUE) as queue:
        message = queue.get_nowait()
    for said_as, header in [("due", "eta"), ("expires", "expires")]:
        assert datetime.fromisoformat(message.headers[header]).timestamp() == intent[said_as]
    assert message.properties["expiration"] == "90000"


def test_a_task_can_be_sent_for_a_point_in_time(in_memory: Producer, folder: Path) -> None:
    noon = datetime(2026, 11, 10, 12, tzinfo=ZoneInfo("Europe/Berlin"))
    assert in_memory.send("pay", eta=noon, queue=QUEUE).accepted
    (_, _, intent), _ = said(folder)
    assert intent["due"] == noon.timestamp()
    with kombu.Connection("memory://") as connection, connection.SimpleQueue(QUEUE) as queue:
        assert queue.get_nowait().headers["eta"] == "2026-11-10T11:00:00+00:00"


def test_what_was_to_be_sent_before_is_due_then_and_goes_out_at_once(in_memory: Producer, folder: Path) -> None:
    late = in_memory.at(1_000.25)
    assert late.send("pay", queue=QUEUE).accepted
    assert in_memory.send("pay", queue=QUEUE).accepted
    assert late.at(2_000.0).send("pay", queue=QUEUE).accepted
    assert late.send("pay", queue=QUEUE).accepted
    intents = [data for kind, _, data in said(folder) if kind is Kind.INTENDED]
    assert [intent.get("due") for intent in intents] == [1_000.25, None, 2_000.0, 1_000.25]
    with kombu.Connection("memory://") as connection, connection.SimpleQueue(QUEUE) as queue:
        # Nobody holds it back: that it is late, only the journal is told.
        assert {queue.get_nowait().headers["eta"] for _ in intents} == {None}


def test_a_task_for_later_is_due_later_whenever_it_was_to_be_sent(in_memory: Producer, folder: Path) -> None:
    noon = datetime(2026, 11, 10, 12, tzinfo=UTC)
    assert in_memory.at(1_000.25).send("pay", eta=noon, queue=QUEUE).accepted
    (_, _, intent), _ = said(folder)
    assert intent["due"] == noon.timestamp()


def test_whoever_sends_late_uses_the_connections_that_are_there(in_memory: Producer) -> None:
    idle = in_memory._idle  # noqa: SLF001 - connections are its own.
    (link,) = idle
    assert in_memory.at(1.0).send("pay", queue=QUEUE).accepted
    assert list(idle) == [link]
    in_memory.at(1.0).close()
    assert not idle


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"eta": datetime(2026, 11, 10, 12)}, "says no time zone"),  # noqa: DTZ001 - that is what is wrong with it.
        ({"eta": datetime(2026, 11, 10, 12, tzinfo=UTC), "countdown_s": 1}, "give one of them"),
        ({"args": [object()]}, "the arguments of pay are not JSON"),
        ({"args": [{1: {2, 3}}]}, "the arguments of pay are not JSON"),
        ({"args": 4}, "the arguments of pay are not JSON"),
        ({"kwargs": [1]}, "the arguments of pay are not JSON"),
        ({"expires_s": math.nan}, "expires_s=nan leads to no point in time"),
        ({"expires_s": "x"}, "expires_s='x' leads to no point in time"),
        ({"countdown_s": math.inf}, "countdown_s=inf leads to no point in time"),
        ({"countdown_s": 1e12}, "countdown_s=1000000000000.0 leads to no point in time"),
        ({"countdown_s": 1e17}, "countdown_s=1e.17 leads to no point in time"),
        ({"priority": "x"}, "priority='x' is none"),
        ({"priority": 256}, "priority=256 is none"),
        ({"priority": 1.0}, "priority=1.0 is none"),
        ({"queue": "q" * 256}, "has 256 bytes"),
        ({"task_id": "\ud800"}, "is no text"),
        ({"task_id": 7}, "task_id=7 is no text"),
    ],
)
def test_what_no_message_can_be_made_of_is_a_wrong_use_and_leaves_no_entry(
    in_memory: Producer, folder: Path, wrong: dict[str, Any], match: str
) -> None:
    with pytest.raises(UsageError, match=match):
        in_memory.send("pay", **wrong)
    assert in_memory.send("pay", task_id="next").accepted
    assert {task for _, task, _ in said(folder)} == {"next"}


def test_what_is_sent_is_celerys_message_and_asks_for_no_result_of_ours(in_memory: Producer, folder: Path) -> None:
    sent = in_memory.send("pay", [4], {"currency": "SEK"}, task_id="t-1", queue=QUEUE)
    assert sent == Sent(task="t-1", outcome=Kind.ACCEPTED)
    assert said(folder) == [
        (Kind.INTENDED, "t-1", {"name": "pay", "queue": QUEUE}),
        (Kind.ACCEPTED, "t-1", {"confirmed": True}),
    ]
    with kombu.Connection("memory://") as connection, connection.SimpleQueue(QUEUE) as queue:
        message = queue.get_nowait()
    assert (message.headers["id"], message.headers["task"]) == ("t-1", "pay")
    args, kwargs, _ = json.loads(message.body)
    assert (args, kwargs) == ([4], {"currency": "SEK"})


def test_the_environments_broker_is_not_asked(
    monkeypatch: pytest.MonkeyPatch, listener: socket.socket, make: Make, free_port: int
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", url(listener.getsockname()[1]))
    producer = make(url(free_port))
    assert producer.send("pay").outcome is Kind.REFUSED
    connect_to_memory(producer)
    with closing(producer):
        assert producer.send("pay").accepted
    listener.setblocking(False)  # noqa: FBT003 - the socket's own signature.
    with pytest.raises(BlockingIOError):
        listener.accept()


def test_the_environments_results_are_not_opened(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_memory: Producer
) -> None:
    results = tmp_path / "results.sqlite3"
    monkeypatch.setenv("CELERY_RESULT_BACKEND", f"db+sqlite:///{results}")
    assert in_memory.send("pay").accepted
    assert not results.exists()


def circular() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    "result",
    [
        float("nan"),
        [float("inf")],
        {1, 2},
        b"bytes",
        pytest.param(object(), id="object"),
        {("a", "b"): 1},
        pytest.param(circular(), id="circular"),
        pytest.param(10**5_000, id="whole number"),
    ],
)
def test_an_expectation_that_is_not_json_is_refused_and_leaves_no_gap(
    in_memory: Producer, folder: Path, result: object
) -> None:
    with pytest.raises(UsageError, match="what is expected of pay is not JSON"):
        in_memory.send("pay", expect=Expect(result=result), queue=QUEUE)
    assert list(folder.iterdir()) == []
    in_memory.send("pay", queue=QUEUE)
    (path,) = folder.iterdir()
    tail = journal.Tail(path)
    assert [event.kind for event in tail.read()] == [Kind.OPENED, Kind.INTENDED, Kind.ACCEPTED]
    assert (tail.missing, tail.damaged) == (0, 0)


def test_a_lone_surrogate_can_be_expected(in_memory: Producer, folder: Path) -> None:
    in_memory.send("pay", expect=Expect(result="caf\udce9.csv"), queue=QUEUE)
    (_, _, intent), _ = said(folder)
    assert intent["expect"] == {"result": "caf\udce9.csv"}


# ------------------------------------------------------------------------------------------------------- routes


def test_a_name_follows_the_routes_of_the_app_unless_a_queue_is_named(in_memory: Producer, folder: Path) -> None:
    in_memory.routes = Routes(default=Route.to_queue(QUEUE), by_task={"mail": Route.to_queue("celery")})
    for name, queue in (("pay", None), ("mail", None), ("mail", QUEUE)):
        assert in_memory.send(name, queue=queue).accepted
    intents = [data.get("queue") for kind, _, data in said(folder) if kind is Kind.INTENDED]
    assert intents == [QUEUE, None, QUEUE]
    with kombu.Connection("memory://") as connection:
        assert connection.default_channel.queue_declare(QUEUE, passive=True).message_count == 2


@pytest.mark.parametrize(
    "route",
    [
        Route(queue="reports", routing_key="reports.daily", exchange="reports", exchange_type="topic", priority=4),
        Route(queue=None, routing_key="all", exchange="news", exchange_type="fanout"),
    ],
)
def test_a_route_to_an_exchange_is_published_there(
    in_memory: Producer, monkeypatch: pytest.MonkeyPatch, route: Route
) -> None:
    published: dict[str, Any] = {}

    def publish(_link: Link, _send: Any, _name: str, _message: Any, **options: Any) -> None:
        published.update(options)

    monkeypatch.setattr(Link, "publish", publish)
    monkeypatch.setattr(Link, "find", lambda _link, queue: published.update(found=queue.name))
    in_memory.routes = Routes(by_task={"report": route})
    assert in_memory.send("report").accepted
    assert published.get("found") == route.queue
    assert (published["exchange"], published["routing_key"]) == (route.exchange, route.routing_key)
    assert published.get("priority") == route.priority
    if route.queue is not None:
        assert (published["queue"].name, published["queue"].exchange.type) == (route.queue, "topic")
