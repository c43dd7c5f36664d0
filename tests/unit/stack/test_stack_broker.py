"""Which broker a stack uses, and what it takes down afterwards. The brokers of these tests only keep a diary."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.audit.run_folder import RunFolder
from harness.containers.broker_node import Login
from harness.containers.engine import PortTakenError, State, Status
from harness.errors import UsageError
from harness.stack.stack_broker import StackBroker
from harness.stack.stack_spec import StackSpec


@dataclass
class FakeBroker:
    """In the place of a `BrokerNode`."""

    name: str = "broker"
    kept_ports: Sequence[int] = ()
    taken: set[str] = field(default_factory=set)
    done: list[str] = field(default_factory=list)
    exit_code: int = 0
    """The exit code with which it stops."""
    spec: Any = field(default_factory=lambda: SimpleNamespace(image="image", ports=(5672, 15672)))

    def start(self) -> None:
        if self.taken:
            raise PortTakenError(self.taken.pop())
        self.done.append("start")

    def wait_ready(self) -> None:
        self.done.append("wait")

    def is_up(self) -> bool:
        return True

    def stop(self, timeout_s: int) -> None:
        self.done.append(f"stop within {timeout_s}")

    @property
    def container(self) -> Any:
        """Its container, as far as it says how it ended."""
        return SimpleNamespace(state=lambda: State(status=Status.EXITED, exit_code=self.exit_code))

    def upgrade(self, image: str) -> None:
        self.done.append(f"upgrade to {image}")

    def create_vhost(self, name: str) -> Login:
        self.done.append("create vhost")
        return Login(user=name, password="", vhost=name, amqp_url_inside="", amqp_url_outside="")

    def delete_vhost(self, login: Login) -> None:
        self.done.append(f"delete vhost of {login.vhost == login.user}")

    def make_durable(self) -> None:
        self.done.append("make durable")

    def last_lines(self, count: int) -> str:
        return f"at most {count} lines"

    def remove(self) -> None:
        self.done.append("remove")


@dataclass
class Session:
    """In the place of `SharedParts`."""

    broker: FakeBroker = field(default_factory=FakeBroker)
    volumes: list[str] = field(default_factory=list)

    @property
    def engine(self) -> "Session":
        """Itself, as far as it makes volumes."""
        return self

    def create_volume(self, name: str, *, size_mb: int | None) -> str:
        self.volumes.append(name if size_mb is None else f"{name} of {size_mb} MB")
        return name

    def remove_volume(self, name: str) -> None:
        assert name == "broker"
        self.volumes.clear()

    def say_once(self, line: str) -> None:
        assert line


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "broker")


def broker_of(session: Any, folder: RunFolder, *, own: bool) -> Any:
    return StackBroker(session, StackSpec(app="shop.app", own_broker=own), folder)


def test_a_stack_has_a_vhost_on_the_broker_of_the_session(folder: RunFolder) -> None:
    session = Session()
    broker = broker_of(session, folder, own=False)
    with broker.opened("network") as login:
        assert (broker.node, broker.login) == (session.broker, login)
        broker.make_durable()
    assert broker.login is None
    assert session.broker.done == ["create vhost", "delete vhost of True"]
    assert (folder.logs / "broker.log").read_text() == "at most 300 lines\n"


def test_a_broker_of_its_own_keeps_ports_that_are_free_and_is_removed_afterwards(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, made, taken = Session(), list[FakeBroker](), {"a port is in use"}

    def new_broker(_: object, *, name: str, kept_ports: Sequence[int], **__: str) -> FakeBroker:
        made.append(FakeBroker(name, kept_ports, taken))
        return made[-1]

    monkeypatch.setattr("harness.stack.stack_broker.broker_choice.new_broker", new_broker)
    broker = broker_of(session, folder, own=True)
    with pytest.raises(UsageError, match="has no broker yet"):
        _ = broker.node
    with broker.opened("network"):
        refused, own = made
        assert broker.node is own
        broker.make_durable()
    assert (refused.done, own.done) == ([], ["start", "wait", "create vhost", "make durable", "remove"])
    assert session.broker.done == []
    assert len(set(own.kept_ports)) == 2
    assert own.name.startswith("broker-")
    assert (folder.logs / f"{own.name}.log").exists()


def test_without_a_free_port_it_gives_up(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "harness.stack.stack_broker.broker_choice.new_broker", lambda *_, **__: FakeBroker(taken={"in use"})
    )
    with pytest.raises(PortTakenError, match="in use"), broker_of(Session(), folder, own=True).opened("network"):
        pytest.fail("it was opened")


def test_a_broker_whose_data_are_kept_apart_is_upgraded_and_both_logs_are_kept(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, made = Session(), list[tuple[FakeBroker, str, str | None]]()

    def new_broker(_: object, *, name: str, image: str, volume: str | None, **__: object) -> FakeBroker:
        made.append((FakeBroker(name), image, volume))
        return made[-1][0]

    monkeypatch.setattr("harness.stack.stack_broker.broker_choice.new_broker", new_broker)
    spec = StackSpec(app="shop.app", own_broker=True, broker_image="rabbit:old")
    broker = StackBroker(session, spec, folder)  # type: ignore[arg-type]
    with broker.opened("network"):
        broker.upgrade("rabbit:new", 60)
        assert session.volumes == ["broker"]
    ((own, image, volume),) = made
    assert (image, volume, session.volumes) == ("rabbit:old", "broker", [])
    assert own.done == ["start", "wait", "create vhost", "stop within 60", "upgrade to rabbit:new", "wait", "remove"]
    assert {path.name for path in folder.logs.iterdir()} == {f"{own.name}-0.log", f"{own.name}.log"}


@pytest.mark.parametrize(("exit_code", "was_killed"), [(0, False), (143, False), (137, True)])
def test_a_broker_that_does_not_end_in_time_at_an_upgrade_is_told(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, exit_code: int, *, was_killed: bool
) -> None:
    own = FakeBroker(exit_code=exit_code)
    monkeypatch.setattr("harness.stack.stack_broker.broker_choice.new_broker", lambda *_, **__: own)
    broker = broker_of(Session(), folder, own=True)
    with broker.opened("network"):
        assert not broker.was_killed
        broker.upgrade("rabbit:new", 60)
        assert broker.was_killed is was_killed
        own.exit_code = 0
        broker.upgrade("rabbit:newer", 60)
        assert not broker.was_killed


def test_a_broker_that_stacks_share_is_not_upgraded(folder: RunFolder) -> None:
    broker = broker_of(Session(), folder, own=False)
    with broker.opened("network"), pytest.raises(UsageError, match="shared by all stacks, so it cannot be upgraded"):
        broker.upgrade("rabbit:new", 60)


def test_a_broker_with_a_small_disk_shares_it_with_a_container_that_outlives_its_end(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, disk = Session(), FakeBroker("disk")
    monkeypatch.setattr("harness.stack.stack_broker.broker_choice.new_broker", lambda *_, **__: FakeBroker())
    monkeypatch.setattr("harness.stack.stack_broker.broker_choice.new_disk", lambda *_, **__: disk)
    broker = StackBroker(session, StackSpec(app="shop.app", own_broker=True, small_disk=True), folder)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="has no small disk to fill"):
        _ = broker.disk
    with broker.opened("network"):
        shared: object = broker.disk
        assert shared is disk
        assert session.volumes == ["broker of 256 MB"]
    assert (disk.done, session.volumes) == (["start", "remove"], [])
