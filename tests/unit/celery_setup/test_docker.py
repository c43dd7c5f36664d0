"""The Docker client of the pytest-celery door without an engine: what is asked for, and what is refused by name."""

import io
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from harness.celery_setup import docker
from harness.celery_setup.asked import AskedImage, Filling, Images
from harness.celery_setup.container import ServedContainer
from harness.celery_setup.docker import ContainerClient
from harness.errors import StartError, UsageError
from harness.records.event import Kind
from harness.records.journal import Writer
from harness.stack.stack import Stack

if TYPE_CHECKING:
    from harness.containers.node import Node
    from harness.stack.shared_parts import SharedParts

LINES = [b"one\n", b"task succ", b"eeded\n"]


@dataclass
class Asking:
    """A test that asks in the fixture `postgres`."""

    path: Path
    fixture: str = "postgres"
    container_cls: Any = None

    def more_options(self, _command: object) -> list[str]:
        """Return none."""
        return []

    def stack(self) -> Stack:
        """Return what is never used."""
        return cast("Stack", SimpleNamespace())

    def folder(self) -> Path:
        """Return the folder of the test."""
        return self.path


def client(tmp_path: Path) -> ContainerClient:
    said: list[str] = []
    session = SimpleNamespace(network="harness-network", say=said.append, worker_image="node:1")
    return ContainerClient(cast("SharedParts", session), lambda: Asking(tmp_path))


@pytest.mark.parametrize(("image", "name"), [("rabbitmq:management", "rabbitmq"), ("registry/mine/redis@sha", "redis")])
def test_an_image_is_known_by_the_last_part_of_its_name(image: str, name: str) -> None:
    assert AskedImage(id=image).name == name


def test_nothing_is_built_and_the_arguments_are_kept_for_each_image() -> None:
    images = Images({})
    first, lines = images.build(path=".", tag="w:dev", buildargs={"CELERY_VERSION": "5.4.0", "EMPTY": ""})
    second, _ = images.build(path=".", tag="w:dev", buildargs={})
    assert (first.buildargs, second.buildargs, lines) == ({"CELERY_VERSION": "5.4.0"}, {}, [])
    assert images.get(first.id) is first
    assert images.pull("redis", tag="7").id == "redis:7"


def test_networks_are_the_harness_s_and_volumes_are_folders(tmp_path: Path) -> None:
    asked = client(tmp_path)
    assert asked.networks.create("pytest-1").name == "harness-network"
    volume = asked.volumes.create("app")
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as files:
        member = tarfile.TarInfo("tasks/shop.py")
        member.size = 5
        files.addfile(member, io.BytesIO(b"x = 1"))
    archive.seek(0)
    filling = asked.containers.create(image="scratch", volumes={volume.name: {"bind": "/data"}})
    assert isinstance(filling, Filling)
    filling.put_archive("/data", archive)
    assert (tmp_path / "tasks" / "shop.py").read_bytes() == b"x = 1"


def test_a_container_of_another_kind_is_refused_by_the_name_of_its_fixture(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the fixture postgres starts the image 'postgres:17'"):
        client(tmp_path).run("postgres:17", ["postgres"])


def test_ports_and_options_that_would_have_no_effect_are_refused(tmp_path: Path) -> None:
    worker = ["celery", "-A", "app", "worker"]
    with pytest.raises(UsageError, match="asks for the ports"):
        client(tmp_path).run("mine", worker, ports={"5678/tcp": "5678"})
    with pytest.raises(UsageError, match="gives its container mem_limit"):
        client(tmp_path).run("mine", worker, mem_limit="1g", labels={"a": "b"}, detach=True)


@pytest.mark.parametrize("wanted", ["", "5.7.0"])
def test_a_version_that_the_worker_has_is_accepted_and_another_is_not(tmp_path: Path, wanted: str) -> None:
    writer = Writer(tmp_path, node="worker-1", role="worker")
    writer.write(Kind.UP, argv=[], versions={"python": "3.13", "celery": "5.7.0", "kombu": "5.7.0"})
    writer.close()
    stack = cast("Stack", SimpleNamespace(folder=SimpleNamespace(journal=tmp_path)))
    docker.check_version(stack, "worker-1", wanted, "legacy_worker")
    with pytest.raises(UsageError, match=r"legacy_worker asks for Celery 4\.4\.7, and its worker has 5\.7\.0"):
        docker.check_version(stack, "worker-1", "4.4.7", "legacy_worker")


@dataclass
class Native:
    """docker-py's container, as far as its log goes."""

    parts: list[bytes]
    before: bytes = b""
    closed: list[bool] = field(default_factory=list)

    def logs(self, *, stream: bool = False, **_: Any) -> Any:
        """Return the log up to now, or a stream of what comes."""
        if not stream:
            return self.before
        stream_ = SimpleNamespace(close=lambda: self.closed.append(True))
        return _Stream(iter(self.parts), stream_.close)


@dataclass
class _Stream:
    lines: Any
    close: Any

    def __iter__(self) -> Any:
        return self.lines


def served(native: Native, *, is_up: bool = True) -> ServedContainer:
    node = SimpleNamespace(
        name="worker-1",
        is_up=lambda: is_up,
        last_lines=lambda _count: "the end",
        container=SimpleNamespace(state=lambda: "exited with 1"),
    )
    return ServedContainer(cast("Node", node), native)


def test_a_text_is_found_in_the_log_also_where_it_comes_in_two_parts() -> None:
    native = Native(LINES)
    assert served(native).has_logged("succeeded", timeout_s=60)
    assert native.closed == [True]
    assert served(Native([], before=b"it succeeded before")).has_logged("succeeded", timeout_s=60)


def test_a_text_that_never_comes_is_not_waited_for_after_the_container_has_exited() -> None:
    assert not served(Native(LINES)).has_logged("failed", timeout_s=60)
    assert not served(Native(LINES)).has_logged("succeeded", timeout_s=0)


def test_a_container_that_does_not_run_is_not_ready_and_shows_its_last_lines() -> None:
    assert served(Native([])).check_up()
    with pytest.raises(StartError, match=r"worker-1 exited with 1\. Its last log lines:\nthe end"):
        served(Native([]), is_up=False).check_up()
