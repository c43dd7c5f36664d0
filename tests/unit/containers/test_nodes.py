"""What the nodes decide before any container is there."""

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest

from harness.containers.app_node import AppNode
from harness.containers.beat import Beat
from harness.containers.engine import Engine, NodeSpec, State, Status, network_leads_out
from harness.containers.mailbox import Mailbox
from harness.containers.node import Node
from harness.containers.rabbitmq import Broker
from harness.containers.web_node import WebNode
from harness.containers.worker import DEFAULT_OPTIONS, Worker
from harness.errors import EngineError, StartError, UsageError
from harness.records.event import Kind
from harness.records.journal import Writer
from tests.fakes.container import FakeEngine, Program, fake_engine

ENGINE = fake_engine()
SPEC = NodeSpec(name="node", image="image")

MakeWorker = Callable[..., Worker]


@pytest.fixture
def make_worker(tmp_path: Path) -> MakeWorker:
    def make(
        options: list[str] | None = None,
        env: dict[str, str] | None = None,
        pythonpath: Sequence[str] = (),
        queues: Sequence[str] = (),
        entrypoint: Sequence[str] = (),
    ) -> Worker:
        node = AppNode(
            image="image",
            app="shop.app:celery",
            app_folder=tmp_path / "app",
            run_folder=tmp_path / "run",
            network="network",
            broker_url="amqp://inside",
            env=env or {},
            pythonpath=pythonpath,
        )
        return Worker(ENGINE, node, name="worker", options=options, queues=queues, entrypoint=entrypoint)

    return make


def test_a_worker_that_starts_as_its_image_does_finds_the_agent_as_celery(
    make_worker: MakeWorker, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    entrypoint = ("sh", "-c", "echo ready && exec celery -A 'shop.app' worker -c 2")
    worker = make_worker(entrypoint=entrypoint)
    shell, flag, script, name, folder, *command = worker.spec.command
    assert tuple(command) == entrypoint
    # What a container does, here: the agent says with which arguments it was called.
    program = tmp_path / "run" / "bin" / "celery"
    said = program.read_text()
    agent = "python /harness-code/harness/inside/start.py agent"
    assert agent in said
    program.write_text(said.replace(agent, "printf '%s\\n'"))
    ran = subprocess.run(
        [shell, flag, script, name, str(program.parent), *command],
        env={"PATH": os.environ["PATH"], "HARNESS_NODE": "worker-1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert folder == "/harness/run/bin"
    assert ran.stdout.split() == ["ready", "-A", "shop.app", "worker", "-c", "2", "--hostname=worker-1@%h"]


@pytest.fixture
def mailbox(tmp_path: Path) -> Mailbox:
    return Mailbox(ENGINE, image="image", run_folder=tmp_path, network="network")


def rules(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((folder / "control" / "mailbox.json").read_text())["rules"]
    return found


@pytest.mark.parametrize(("said", "leads_out"), [("open", True), ("closed", False), ("", False), (None, False)])
def test_the_network_leads_nowhere_unless_it_is_opened(
    monkeypatch: pytest.MonkeyPatch, said: str | None, *, leads_out: bool
) -> None:
    monkeypatch.delenv("HARNESS_NETWORK", raising=False)
    if said is not None:
        monkeypatch.setenv("HARNESS_NETWORK", said)
    assert network_leads_out() is leads_out


@pytest.mark.parametrize("said", ["on", "Open", "internal"])
def test_a_network_that_is_neither_open_nor_closed_is_a_wrong_use(monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    monkeypatch.setenv("HARNESS_NETWORK", said)
    with pytest.raises(UsageError, match=f"HARNESS_NETWORK is '{said}'; it can be closed"):
        network_leads_out()


@pytest.mark.parametrize("name", ["", "a b", "a.b", "a/b", "-a", "ä", "a" * 42])
def test_a_name_that_is_no_name_of_a_host_is_a_wrong_use(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a node"):
        NodeSpec(name=name, image="image")


def test_a_state_says_how_a_container_ended() -> None:
    assert str(State(status=Status.RUNNING)) == "running"
    assert str(State(status=Status.EXITED, exit_code=0)) == "exited with 0"
    assert str(State(status=Status.EXITED, exit_code=137, out_of_memory=True)) == "exited with 137 (out of memory)"


def test_a_node_that_was_never_started_says_so_and_can_be_removed() -> None:
    node = Node(ENGINE, SPEC)
    with pytest.raises(EngineError, match="has not been started"):
        node.kill()
    node.remove()


def test_a_worker_gets_the_default_options_only_if_it_is_given_none(make_worker: MakeWorker) -> None:
    command = make_worker().spec.command
    start = "/harness-code/harness/inside/start.py"
    head = ("python", start, "agent", "-A", "shop.app:celery", "worker", "--hostname=worker@%h")
    assert command == (*head, *DEFAULT_OPTIONS)
    assert make_worker(options=["--pool=solo"]).spec.command == (*head, "--pool=solo")
    assert make_worker(options=[]).spec.command == head


def test_the_callers_environment_wins(make_worker: MakeWorker) -> None:
    spec = make_worker(env={"CELERY_BROKER_URL": "amqp://elsewhere", "MORE": "1"}).spec
    assert spec.env["CELERY_BROKER_URL"] == "amqp://elsewhere"
    assert spec.env["CELERY_BROKER_READ_URL"] == spec.env["CELERY_BROKER_WRITE_URL"] == "amqp://elsewhere"
    assert spec.env["MORE"] == "1"
    assert spec.env["CELERY_RESULT_BACKEND"] == "db+sqlite:////harness/run/results.sqlite3"


@pytest.mark.parametrize(
    ("env", "pythonpath", "found"),
    [
        (None, (), "/harness-code:/app"),
        ({"PYTHONPATH": "src"}, (), "/harness-code:/app:/app/src"),
        ({"PYTHONPATH": "/opt/lib:.:"}, ("src", "../common"), "/harness-code:/app:/app/src:/common:/opt/lib:/app"),
    ],
)
def test_an_apps_own_python_path_is_added_to_the_harnesss(
    make_worker: MakeWorker, env: dict[str, str] | None, pythonpath: tuple[str, ...], found: str
) -> None:
    assert make_worker(env=env, pythonpath=pythonpath).spec.env["PYTHONPATH"] == found


@pytest.mark.parametrize("options", [["-Q", "own"], ["-Qown"], ["--queues=own"], ["--queues", "own"]])
def test_a_worker_consumes_what_its_options_say_and_otherwise_the_queues_that_it_is_given(
    make_worker: MakeWorker, options: list[str]
) -> None:
    assert make_worker(options=options, queues=["mails", "default"]).spec.command[-len(options) :] == tuple(options)
    said = make_worker(options=["--quiet"], queues=["mails", "default"]).spec.command
    assert said[-2:] == ("--quiet", "--queues=mails,default")
    assert make_worker(queues=["mails"]).spec.command[-2:] == (DEFAULT_OPTIONS[-1], "--queues=mails")


def test_a_worker_may_read_pickled_messages_as_any_user_unless_the_app_forbids_it(make_worker: MakeWorker) -> None:
    assert make_worker().spec.env["C_FORCE_ROOT"] == "1"
    assert make_worker(env={"C_FORCE_ROOT": ""}).spec.env["C_FORCE_ROOT"] == ""


@pytest.mark.parametrize(
    ("said", "advised"),
    [
        ("OSError: [Errno 30] Read-only file system: '/app/w.pid'", True),
        ("sqlite3.OperationalError: unable to open database file", True),
        ("No module named 'shop'", False),
    ],
)
def test_an_app_that_ends_because_it_cannot_write_is_told_how_it_can(
    tmp_path: Path, said: str, *, advised: bool
) -> None:
    (tmp_path / "journal").mkdir()
    engine = FakeEngine(programs={"worker": Program(says=lambda _: [said], ends_with=1)})
    node = AppNode(
        image="image", app="app", app_folder=tmp_path, run_folder=tmp_path, network="network", broker_url="amqp://b"
    )
    worker = Worker(cast("Engine", engine), node, name="worker")
    worker.start()
    with pytest.raises(StartError, match="exited with 1") as raised:
        worker.wait_ready(0)
    assert ("writable=True" in str(raised.value)) is advised


@pytest.mark.parametrize("settings", [{"beat_schedule": {1, 2}}, {"timezone": float}])
def test_settings_that_are_not_json_are_a_wrong_use(tmp_path: Path, settings: dict[str, object]) -> None:
    node = AppNode(
        image="image",
        app="shop.app",
        app_folder=tmp_path,
        run_folder=tmp_path,
        network="network",
        broker_url="amqp://inside",
    )
    with pytest.raises(UsageError, match="the Celery settings to override are not JSON"):
        Beat(ENGINE, node, name="beat-1", settings=settings)


def test_a_worker_knows_its_tasks_once_its_journal_names_them(make_worker: MakeWorker, tmp_path: Path) -> None:
    worker = make_worker()
    journal = tmp_path / "run" / "journal"
    journal.mkdir(parents=True)
    assert worker.tasks == frozenset()
    writer = Writer(journal, node="worker", role="worker")
    writer.write(Kind.SETTINGS, tasks=["shop.welcome"])
    writer.close()
    other = Writer(journal, node="other", role="worker")
    other.write(Kind.SETTINGS, tasks=["stock.count"])
    other.close()
    assert worker.tasks == {"shop.welcome"}


def test_only_the_run_folder_can_be_written_to(make_worker: MakeWorker, tmp_path: Path) -> None:
    mounts = make_worker().spec.mounts
    assert {mount.inside for mount in mounts} == {"/harness-code/harness", "/harness/run", "/app"}
    assert [mount.host for mount in mounts if not mount.read_only] == [tmp_path / "run"]
    assert make_worker().spec.read_only


def test_every_rule_of_a_mailbox_has_a_number_of_its_own_also_after_they_were_cleared(
    mailbox: Mailbox, tmp_path: Path
) -> None:
    mailbox.answer("*@a.example", "451 4.3.0 later", times=2)
    mailbox.answer("*", delay_s=1.5)
    assert rules(tmp_path) == [
        {"id": 1, "recipient": "*@a.example", "reply": "451 4.3.0 later", "delay_s": 0.0, "times": 2},
        {"id": 2, "recipient": "*", "reply": None, "delay_s": 1.5, "times": None},
    ]
    mailbox.clear()
    assert rules(tmp_path) == []
    mailbox.answer("*", "550 no")
    assert [rule["id"] for rule in rules(tmp_path)] == [3]


@pytest.mark.parametrize("reply", ["250 OK", "later", "451 x\r\n250 y", "", "450", "45"])
def test_an_answer_that_is_no_refusal_is_a_wrong_use(mailbox: Mailbox, reply: str) -> None:
    with pytest.raises(UsageError, match="no refusal"):
        mailbox.answer("*", reply)


@pytest.mark.parametrize(("delay_s", "times"), [(-1.0, None), (float("nan"), None), (3600.0, None), (0.0, 0)])
def test_a_rule_that_could_not_be_obeyed_is_a_wrong_use(mailbox: Mailbox, delay_s: float, times: int | None) -> None:
    with pytest.raises(UsageError, match="makes no sense"):
        mailbox.answer("*", delay_s=delay_s, times=times)


def test_a_mail_whose_line_is_not_complete_has_not_arrived_yet(mailbox: Mailbox, tmp_path: Path) -> None:
    assert mailbox.messages() == []
    (tmp_path / "effects" / "mail").mkdir(parents=True)
    (tmp_path / "effects" / "mail" / "000001.eml").write_bytes(b"Subject: one\r\n\r\nHello\r\n")
    line = json.dumps({"key": "mail:1", "task": None, "recipients": ["a@b.example"], "file": "effects/mail/000001.eml"})
    (tmp_path / "effects" / "mailbox.jsonl").write_text(f"{line}\n{line[:20]}")
    (mail,) = mailbox.messages()
    assert (mail.key, mail.task, mail.recipients) == ("mail:1", None, ("a@b.example",))
    assert mail.parsed["Subject"] == "one"


@pytest.mark.parametrize(
    ("ports", "kept"), [((), {}), ((0, 0), {}), ((0, 15672), {15672: 15672}), ((1, 2), {5672: 1, 15672: 2})]
)
def test_a_broker_keeps_the_ports_that_are_named(ports: Sequence[int], kept: dict[int, int]) -> None:
    assert Broker(ENGINE, image="image", network="network", kept_ports=ports).spec.kept_ports == kept


@pytest.mark.parametrize(("port", "kept"), [(0, {}), (8000, {8000: 8000})])
def test_a_web_producer_keeps_the_port_that_is_named(tmp_path: Path, port: int, kept: dict[int, int]) -> None:
    app = AppNode(
        image="image",
        app="shop",
        app_folder=tmp_path / "app",
        run_folder=tmp_path / "run",
        network="network",
        broker_url="amqp://inside",
        env={},
    )
    assert WebNode(ENGINE, app, port=port).spec.kept_ports == kept
