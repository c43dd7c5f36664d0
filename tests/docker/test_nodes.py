"""The nodes against a real engine: ownership, broker, worker, mailbox."""

import contextlib
import os
import smtplib
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from pathlib import Path

import amqp
import docker
import pytest
import requests
from amqp.exceptions import AccessRefused, AMQPError, NotAllowed
from celery import Celery

from harness.containers.app_node import AppNode
from harness.containers.broker_node import Login
from harness.containers.engine import Engine, NodeSpec, Status
from harness.containers.image_recipes import Image
from harness.containers.images import ensure
from harness.containers.mailbox import SMTP_PORT, Mailbox
from harness.containers.node import Node
from harness.containers.ownership import NODE_LABEL, OWNER_LABEL, RUN_LABEL, Owner, sweep
from harness.containers.rabbitmq import Broker
from harness.containers.worker import Worker
from harness.errors import BrokerError, EngineError, StartError
from harness.project.needs import Mount
from harness.records.event import Kind
from harness.records.journal import read
from harness.wait import wait_until

pytestmark = pytest.mark.docker

SLEEPER = ("python", "-c", "import time; time.sleep(600)")


@pytest.fixture(scope="module")
def node_image(engine: Engine) -> str:
    return ensure(engine, Image.NODE, say=print)


@pytest.fixture(scope="module")
def network(engine: Engine) -> str:
    return engine.create_network("nodes")


@pytest.fixture(scope="module")
def broker(engine: Engine, network: str) -> Iterator[Broker]:
    broker = Broker(engine, image=ensure(engine, Image.RABBITMQ, say=print), network=network)
    broker.start()
    broker.wait_ready()
    yield broker
    broker.remove()


@pytest.fixture
def login(broker: Broker, request: pytest.FixtureRequest) -> Iterator[Login]:
    login = broker.create_vhost(request.node.name[:60])
    yield login
    broker.delete_vhost(login)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    for name in ("journal", "effects"):
        (tmp_path / "run" / name).mkdir(parents=True)
    return tmp_path / "run"


# ------------------------------------------------------------------------------------------------------- owners

CHILD = """
import sys
from harness.containers.engine import NodeSpec
from harness.containers.engine_choice import connect
engine = connect()
network = engine.create_network("child")
command = ("python", "-c", "import time; time.sleep(600)")
for number in range(int(sys.argv[2])):
    engine.run(NodeSpec(name=f"child{number}", image=sys.argv[1], command=command), network=network)
print("started", flush=True)
sys.stdin.read()
"""


@contextlib.contextmanager
def another_process(image: str, containers: int) -> Iterator["subprocess.Popen[str]"]:
    """Start a process with some containers and a network of its own. It ends when its input does."""
    command = [sys.executable, "-c", CHILD, image, str(containers)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "started\n"
            yield process
        finally:
            process.kill()


def belongings(client: docker.DockerClient, pid: int) -> list[str]:
    """Return the ids of all containers and networks whose owner had this pid."""
    ours = {"label": OWNER_LABEL}
    found = [*client.api.containers(all=True, filters=ours), *client.api.networks(filters=ours)]
    owners = [(Owner.from_label(thing["Labels"][OWNER_LABEL]), thing) for thing in found]
    return sorted(thing["Id"] for owner, thing in owners if owner is not None and owner.pid == pid)


def test_a_container_says_whose_it_is(
    client: docker.DockerClient, engine: Engine, node_image: str, network: str
) -> None:
    spec = NodeSpec(name="labelled", image=node_image, command=SLEEPER, labels={RUN_LABEL: "the-run"})
    container = engine.run(spec, network=network)
    labels = client.containers.get(container.id).labels
    container.remove()
    assert labels[OWNER_LABEL] == str(Owner.here())
    assert labels[NODE_LABEL] == "labelled"
    assert labels[RUN_LABEL] == "the-run"


def test_a_sweep_removes_what_a_killed_process_left_and_nothing_of_the_living(
    client: docker.DockerClient, engine: Engine, node_image: str, network: str
) -> None:
    mine = engine.run(NodeSpec(name="mine", image=node_image, command=SLEEPER), network=network)
    with another_process(node_image, 1) as living:
        with another_process(node_image, 1) as dead:
            dead.kill()
        assert len(belongings(client, dead.pid)) == 2
        swept = sweep(engine)
        assert belongings(client, dead.pid) == []
        assert any("child0" in name for name in swept)
        assert any("celery-harness-child-" in name for name in swept)
        assert len(belongings(client, living.pid)) == 2
        assert str(mine.state()) == "running"
    mine.remove()
    sweep(engine)


def test_several_sweepers_at_once_do_not_stumble_over_each_other(
    client: docker.DockerClient, engine: Engine, node_image: str
) -> None:
    with another_process(node_image, 3) as dead:
        dead.kill()
    with ThreadPoolExecutor(3) as pool:
        # Each result is asked for, so that an error in any of them is seen.
        assert len([*pool.map(sweep, [engine] * 3)]) == 3
    assert belongings(client, dead.pid) == []


def test_a_process_that_ends_in_good_order_leaves_nothing(client: docker.DockerClient, node_image: str) -> None:
    with another_process(node_image, 1) as process:
        assert len(belongings(client, process.pid)) == 2
        process.communicate(timeout=30)
        assert process.returncode == 0
        assert belongings(client, process.pid) == []


def test_a_folder_that_does_not_exist_is_an_error_and_leaves_no_container(
    client: docker.DockerClient, engine: Engine, node_image: str, tmp_path: Path
) -> None:
    before = belongings(client, os.getpid())
    mount = Mount(host=tmp_path / "absent", inside="/absent")
    with pytest.raises(EngineError, match="absent"):
        engine.run(NodeSpec(name="broken", image=node_image, mounts=(mount,)))
    with pytest.raises(EngineError, match="no-such-program"):
        engine.run(NodeSpec(name="broken", image=node_image, command=("/no-such-program",)))
    assert belongings(client, os.getpid()) == before


def test_an_image_that_is_not_there_is_an_error_at_once_and_is_not_pulled(engine: Engine) -> None:
    with pytest.raises(EngineError, match="not there"):
        engine.run(NodeSpec(name="broken", image="celery-harness/absent:1"))


# -------------------------------------------------------------------------------------------------------- nodes


def test_a_node_that_dies_before_it_is_ready_is_a_start_error_with_its_last_words(
    engine: Engine, node_image: str
) -> None:
    command = ("python", "-c", "import absent_module")
    node = Node(engine, NodeSpec(name="dying", image=node_image, command=command), missing=lambda: "everything")
    node.start()
    with pytest.raises(StartError) as caught:
        node.wait_ready(20)
    node.remove()
    assert str(caught.value).startswith("dying exited with 1 before it was ready.")
    assert str(caught.value).endswith("ModuleNotFoundError: No module named 'absent_module'")


def test_a_node_that_never_gets_ready_is_a_start_error_that_says_what_is_lacking(
    engine: Engine, node_image: str
) -> None:
    command = ("python", "-uc", "import time; print('thinking'); time.sleep(60)")
    node = Node(engine, NodeSpec(name="slow", image=node_image, command=command), missing=lambda: "a good idea")
    node.start()
    wait_until(node.container.logs, what="the first line", timeout_s=20)
    with pytest.raises(StartError, match=r"within 0.1 s: it is running, and still lacks: a good idea.*\nthinking"):
        node.wait_ready(0.1)
    node.remove()


def test_the_whole_log_is_saved_under_the_nodes_name(engine: Engine, node_image: str, tmp_path: Path) -> None:
    command = ("python", "-c", "for n in range(1000): print(n)")
    node = Node(engine, NodeSpec(name="talker", image=node_image, command=command))
    assert node.save_logs(tmp_path) is None
    node.start()
    wait_until(lambda: "exited" in str(node.container.state()), what="the end", timeout_s=20)
    assert node.save_logs(tmp_path) == tmp_path / "talker.log"
    assert (tmp_path / "talker.log").read_text().split() == [str(number) for number in range(1000)]
    node.remove()
    # What is saved is not lost because the node is.
    assert node.save_logs(tmp_path) is None
    assert (tmp_path / "talker.log").exists()


# ------------------------------------------------------------------------------------------------------ network

REACHES = """
import socket, sys, time
for address in sys.argv[2:]:
    try:
        socket.create_connection((address, int(sys.argv[1])), 5).close()
        print(address, "reached")
    except OSError as error:
        print(address, error)
before = time.monotonic()
try:
    socket.gethostbyname("no-such-node.invalid")
except OSError:
    print("names", "quick" if time.monotonic() - before < 8 else "slow")
"""


@pytest.mark.parametrize(("leads_out", "reached"), [(False, False), (True, True)])
def test_a_network_leads_nowhere_unless_it_is_opened(
    engine: Engine, node_image: str, beyond: tuple[int, list[str]], *, leads_out: bool, reached: bool
) -> None:
    port, addresses = beyond
    network = engine.create_network("beyond", leads_out=leads_out)
    # One that publishes a port is kept in as well.
    command = ("python", "-uc", REACHES, str(port), *addresses)
    node = Node(engine, NodeSpec(name="node", image=node_image, command=command, ports=(8000,)), network=network)
    node.start()
    try:
        wait_until(lambda: node.container.state().status is Status.EXITED, what="the end", timeout_s=60)
        said = node.container.logs().splitlines()
    finally:
        node.remove()
        engine.remove_network(network)
    assert [line.endswith(" reached") for line in said[:-1]] == [reached] * len(addresses), said
    assert said[-1] == "names quick"


def test_networks_that_are_made_at_once_do_not_get_in_each_others_way(engine: Engine) -> None:
    with ThreadPoolExecutor(6) as pool:
        networks = list(pool.map(engine.create_network, [f"crowd{number}" for number in range(6)]))
    assert len(set(networks)) == 6
    for network in networks:
        engine.remove_network(network)


LIMITS = """
import os, pathlib
status = dict(line.split(":\\t") for line in pathlib.Path("/proc/self/status").read_text().splitlines())
print("rights", int(status["CapEff"], 16), int(status["CapBnd"], 16), "gains none", status["NoNewPrivs"])
for folder in ("/", "/opt/venv", "/tmp", "/harness/run"):
    try:
        pathlib.Path(folder, "written").write_text("x")
        print(folder, "written")
    except OSError as error:
        print(folder, error.strerror)
"""


def test_a_node_can_write_to_its_mounts_and_to_tmp_alone_and_has_no_rights_of_root(
    engine: Engine, node_image: str, network: str, run_folder: Path, client: docker.DockerClient
) -> None:
    mounts = (Mount(host=run_folder, inside="/harness/run", read_only=False),)
    spec = NodeSpec(name="node", image=node_image, command=("python", "-uc", LIMITS), mounts=mounts, read_only=True)
    node = Node(engine, spec, network=network)
    node.start()
    try:
        wait_until(lambda: node.container.state().status is Status.EXITED, what="the end", timeout_s=20)
        said = node.container.logs().splitlines()
        limits = client.api.inspect_container(node.container.id)["HostConfig"]
    finally:
        node.remove()
    assert said == [
        "rights 0 0 gains none 1",
        "/ Read-only file system",
        "/opt/venv Read-only file system",
        "/tmp written",  # noqa: S108 - inside the container.
        "/harness/run written",
    ]
    assert limits["PidsLimit"] > 0
    assert 0 < limits["Memory"] == limits["MemorySwap"] < client.info()["MemTotal"]


def test_a_node_that_takes_too_much_memory_is_killed_and_says_so(
    monkeypatch: pytest.MonkeyPatch, engine: Engine, node_image: str
) -> None:
    monkeypatch.setenv("HARNESS_MEMORY_MB", "64")
    node = Node(engine, NodeSpec(name="greedy", image=node_image, command=("python", "-c", "bytearray(200_000_000)")))
    node.start()
    try:
        wait_until(lambda: node.container.state().status is Status.EXITED, what="the end", timeout_s=20)
        assert str(node.container.state()) == "exited with 137 (out of memory)"
    finally:
        node.remove()


# ------------------------------------------------------------------------------------------------------- broker


@contextlib.contextmanager
def amqp_connection(login: Login, vhost: str | None = None) -> Iterator[amqp.Connection]:
    """Connect from this machine as the login's user, and yield the connection."""
    address = login.amqp_url_outside.rpartition("@")[2].partition("/")[0]
    connection = amqp.Connection(
        host=address,
        userid=login.user,
        password=login.password,
        virtual_host=vhost or login.vhost,
        connect_timeout=5,
        read_timeout=5,
        confirm_publish=True,
    )
    try:
        connection.connect()
        yield connection
    finally:
        with contextlib.suppress(OSError, AMQPError):
            connection.close()
        connection.collect()


def fill(connection: amqp.Connection, queue: str, messages: int) -> amqp.Channel:
    channel = connection.channel()
    channel.queue_declare(queue, durable=True, auto_delete=False)
    for number in range(messages):
        headers = {"id": f"id-{number}", "task": "some.task"}
        channel.basic_publish(amqp.Message(b"", application_headers=headers, delivery_mode=2), routing_key=queue)
    return channel


def test_a_user_has_a_vhost_of_its_own_and_is_refused_on_every_other(broker: Broker, login: Login) -> None:
    other = broker.create_vhost(f"{login.vhost}-other")
    with amqp_connection(other) as connection:
        assert connection.connected
    for vhost in (other.vhost, "/"):
        with pytest.raises((NotAllowed, AccessRefused)), amqp_connection(login, vhost):
            pass
    broker.delete_vhost(other)
    with pytest.raises((NotAllowed, AccessRefused)), amqp_connection(other):
        pass
    broker.delete_vhost(other)


def counts(broker: Broker, login: Login) -> list[tuple[str, int, int]]:
    """Of each queue its name, and how many messages are ready and unacknowledged."""
    return [(queue.name, queue.ready, queue.unacked) for queue in broker.queues(login.vhost)]


def test_a_vhost_whose_name_needs_quoting_works(broker: Broker) -> None:
    login = broker.create_vhost("a/b c%2Fd")
    with amqp_connection(login) as connection:
        fill(connection, "q/1", 1)
        assert counts(broker, login) == [("q/1", 1, 0)]
        # The URL is what a Celery app would get.
        with Celery(broker=login.amqp_url_outside, set_as_current=False).connection_for_write() as outside:
            assert outside.connect().connected
    broker.delete_vhost(login)


def test_counts_are_live(broker: Broker, login: Login) -> None:
    assert broker.queues(login.vhost) == []
    with amqp_connection(login) as connection:
        channel = fill(connection, "q", 10)
        assert counts(broker, login) == [("q", 10, 0)]
        taken = [channel.basic_get("q") for _ in range(3)]
        assert counts(broker, login) == [("q", 7, 3)]
        (look,) = broker.look(login.vhost, ["q", "absent"]).values()
        assert (look.ready, look.consumers) == (7, 0)
        channel.basic_consume("q", callback=lambda _message: None)
        wait_until(lambda: broker.look(login.vhost, ["q"])["q"].consumers == 1, what="the consumer", timeout_s=1)
        channel.basic_ack(taken[-1].delivery_tag, multiple=True)
        wait_until(lambda: counts(broker, login) == [("q", 0, 7)], what="the ack", timeout_s=1)


def test_a_queue_has_what_it_was_declared_with_and_what_its_policy_adds(broker: Broker, login: Login) -> None:
    def add_policy(name: str, priority: int, pattern: str, apply_to: str, definition: dict[str, object]) -> None:
        body = {"pattern": pattern, "priority": priority, "apply-to": apply_to, "definition": definition}
        answer = requests.put(
            f"{broker.management_url}/api/policies/{login.vhost}/{name}",
            json=body,
            auth=broker.administrator,
            timeout=10,
        )
        assert answer.ok

    with amqp_connection(login) as connection, connection.channel() as channel:
        channel.queue_declare("mails", durable=True, auto_delete=False, arguments={"x-max-length": 5})
        add_policy("all", 0, ".*", "all", {"message-ttl": 1000, "max-length": 9})
        add_policy("first", 1, "^mails$", "classic_queues", {"message-ttl": 2000})
        add_policy("other", 2, "^mails$", "quorum_queues", {"delivery-limit": 2})
        (queue,) = broker.queues(login.vhost)
    assert queue.arguments == {"x-queue-type": "classic", "x-max-length": 5, "x-message-ttl": 2000}
    assert queue.expires_messages


def test_peeking_shows_every_ready_message_and_leaves_it_there(broker: Broker, login: Login) -> None:
    with amqp_connection(login) as connection:
        channel = fill(connection, "q", 5)
        held = channel.basic_get("q")
        expected = [f"id-{number}" for number in range(1, 5)]
        for _ in range(2):
            waiting = broker.peek(login.vhost, "q")
            assert [message.task for message in waiting] == expected
            assert {message.name for message in waiting} == {"some.task"}
            assert counts(broker, login) == [("q", 4, 1)]
        channel.basic_ack(held.delivery_tag)
        assert [channel.basic_get("q", no_ack=True).headers["id"] for _ in expected] == expected


def test_a_message_that_is_none_of_celerys_is_peeked_at_as_well(broker: Broker, login: Login) -> None:
    with amqp_connection(login) as connection:
        fill(connection, "q", 1).basic_publish_confirm(amqp.Message(b"bare"), routing_key="q")
        assert [message.task for message in broker.peek(login.vhost, "q")] == ["id-0", None]


def test_what_the_broker_refuses_is_a_broker_error_with_its_answer(broker: Broker, login: Login) -> None:
    with pytest.raises(BrokerError, match="404"):
        broker.queues("absent")
    with pytest.raises(BrokerError, match="404"):
        broker.peek(login.vhost, "absent")


def test_a_paused_broker_hangs_and_goes_on_where_it_was(broker: Broker, login: Login) -> None:
    with amqp_connection(login) as connection:
        channel = fill(connection, "q", 1)
        broker.pause()
        try:
            with pytest.raises(TimeoutError):
                channel.basic_publish_confirm(amqp.Message(b""), routing_key="q", timeout=0.5)
        finally:
            broker.unpause()
        # The publish that nobody heard back from went through all the same.
        wait_until(lambda: broker.queues(login.vhost)[0].ready == 2, what="the message", timeout_s=10)


def test_after_a_restart_durable_messages_are_there_and_counted_from_the_first_look(
    broker: Broker, login: Login, client: docker.DockerClient
) -> None:
    with amqp_connection(login) as connection:
        fill(connection, "q", 20)
    limits = client.api.inspect_container(broker.container.id)["HostConfig"]
    assert (limits["CapDrop"], limits["CapAdd"]) == (["ALL"], None)
    broker.restart(30)
    broker.wait_ready()
    assert counts(broker, login) == [("q", 20, 0)]
    with amqp_connection(broker.refresh(login)) as connection:
        assert connection.connected


# ------------------------------------------------------------------------------------------------------ workers

APP = """
    import os
    from celery import Celery

    app = Celery("app")

    @app.task
    def add(x, y):
        return x + y
"""


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """All that a worker needs but its name."""

    engine: Engine
    image: str
    network: str
    login: Login
    app_folder: Path
    run_folder: Path

    def worker(self, name: str, *, app: str = "app", options: list[str] | None = None) -> Worker:
        node = AppNode(
            image=self.image,
            app=app,
            app_folder=self.app_folder,
            run_folder=self.run_folder,
            network=self.network,
            broker_url=self.login.amqp_url_inside,
        )
        return Worker(self.engine, node, name=name, options=options)


@pytest.fixture
def workshop(engine: Engine, node_image: str, network: str, login: Login, run_folder: Path) -> Workshop:
    app_folder = run_folder.with_name("app")
    app_folder.mkdir()
    (app_folder / "app.py").write_text(textwrap.dedent(APP))
    (app_folder / "broken.py").write_text("import no_such_module\n")
    return Workshop(
        engine=engine,
        image=node_image,
        network=network,
        login=login,
        app_folder=app_folder,
        run_folder=run_folder,
    )


def test_workers_start_side_by_side_and_consume_when_they_are_ready(workshop: Workshop) -> None:
    workers = [workshop.worker(f"worker{number}") for number in range(3)]
    try:
        threads = [threading.Thread(target=worker.start) for worker in workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for worker in workers:
            worker.wait_ready(60)
        with amqp_connection(workshop.login) as connection:
            assert connection.channel().queue_declare("celery", passive=True).consumer_count == 3
    finally:
        for worker in workers:
            worker.remove()


def test_a_worker_runs_a_task_and_what_it_leaves_belongs_to_the_caller(
    workshop: Workshop, client: docker.DockerClient
) -> None:
    worker = workshop.worker("worker", options=["--concurrency=1", "--pool=solo", "--queues=own"])
    worker.start()
    try:
        worker.wait_ready(60)
        limits = client.api.inspect_container(worker.container.id)["HostConfig"]
        assert (limits["ReadonlyRootfs"], limits["CapDrop"], limits["CapAdd"]) == (True, ["ALL"], None)
        app = Celery(broker=workshop.login.amqp_url_outside, set_as_current=False)
        with app.connection_for_write() as connection:
            app.send_task("app.add", (1, 2), queue="own", connection=connection)
        (event,) = wait_until(
            lambda: [event for event in read(workshop.run_folder / "journal") if event.kind is Kind.FINISHED],
            what="the end of the task",
            timeout_s=20,
        )
        assert event.data["state"] == "SUCCESS"
        assert (workshop.run_folder / "results.sqlite3").exists()
    finally:
        worker.remove()
    assert {path.stat().st_uid for path in workshop.run_folder.rglob("*")} == {os.getuid()}


def test_after_a_restart_a_worker_is_not_ready_by_the_journal_of_the_start_before(workshop: Workshop) -> None:
    worker = workshop.worker("worker")
    worker.start()
    try:
        worker.wait_ready(60)
        worker.restart()
        with pytest.raises(StartError, match="still lacks"):
            worker.wait_ready(0)
        worker.wait_ready(60)
    finally:
        worker.remove()


def test_an_app_that_cannot_be_imported_is_a_start_error_within_a_second_of_the_workers_death(
    workshop: Workshop, client: docker.DockerClient
) -> None:
    worker = workshop.worker("worker", app="broken")
    worker.start()
    try:
        told = r"No module named 'no_such_module': /app/broken\.py, line \d+, needs it\. .*HARNESS_WORKER_IMAGE.*$"
        with pytest.raises(StartError, match=rf"^worker exited with 2 before it was ready\. {told}"):
            worker.wait_ready(60)
        known = time.time()
        died = client.api.inspect_container(worker.container.id)["State"]["FinishedAt"]
        assert known - datetime.fromisoformat(died[:26] + "+00:00").timestamp() < 1
    finally:
        worker.remove()


# ------------------------------------------------------------------------------------------------------ mailbox


@pytest.fixture
def mailbox(engine: Engine, node_image: str, network: str, run_folder: Path) -> Iterator[Mailbox]:
    mailbox = Mailbox(engine, image=node_image, run_folder=run_folder, network=network)
    mailbox.start()
    mailbox.wait_ready(30)
    yield mailbox
    mailbox.remove()


def deliver(mailbox: Mailbox, recipient: str) -> int:
    """Send one mail to one recipient; the code of the answer to the recipient, 250 if it was taken."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "sender@example.com", recipient, "Grüße"
    mail["Message-ID"], mail["X-Task-ID"] = f"<key-{recipient}>", "task-1"
    mail.set_content("Hello.")
    with smtplib.SMTP(*mailbox.container.host_port(SMTP_PORT), timeout=10) as smtp:
        try:
            smtp.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            return error.recipients[recipient][0]
    return 250


def test_a_mail_is_kept_as_it_was_sent(mailbox: Mailbox) -> None:
    assert mailbox.messages() == []
    assert deliver(mailbox, "a@example.com") == 250
    (mail,) = mailbox.messages()
    assert (mail.task, mail.recipients) == ("task-1", ("a@example.com",))
    assert "key-a@example.com" in mail.key
    assert mail.parsed["Subject"] == "Grüße"
    assert mail.parsed.get_content().strip() == "Hello."


def test_a_mailbox_answers_as_it_is_told_as_often_as_it_is_told(mailbox: Mailbox) -> None:
    mailbox.answer("*@busy.example", "451 4.3.0 try again later", times=2)
    mailbox.answer("*@closed.example", "550 5.1.1 nobody here")
    assert [deliver(mailbox, "a@busy.example") for _ in range(3)] == [451, 451, 250]
    assert [deliver(mailbox, "a@closed.example") for _ in range(2)] == [550, 550]
    assert deliver(mailbox, "a@example.com") == 250
    assert mailbox.answered() == ["a@busy.example"] * 2 + ["a@closed.example"] * 2
    mailbox.clear()
    assert deliver(mailbox, "a@closed.example") == 250
    assert len(mailbox.messages()) == 3


def test_a_mailbox_can_be_slow(mailbox: Mailbox) -> None:
    mailbox.answer("*", delay_s=0.5, times=1)
    start = time.monotonic()
    assert deliver(mailbox, "a@example.com") == 250
    assert time.monotonic() - start > 0.5


def test_a_mailbox_stops_when_it_is_asked_to(mailbox: Mailbox) -> None:
    mailbox.stop(10)
    assert str(mailbox.container.state()) == "exited with 0"
