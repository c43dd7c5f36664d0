"""RabbitMQ that is started from another image with its data: who may write them, and how often it counts."""

import os
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest

from harness.containers import rabbitmq
from harness.containers.engine import Container, Engine, NodeSpec
from harness.containers.rabbitmq import DATA, Broker
from harness.errors import EngineError
from tests.fakes.container import FakeEngine, Program

OURS = "celery-harness/rabbitmq:pull-0123456789ab"
OFFICIAL = "rabbitmq:4.1-management"


class Cracked(FakeEngine):
    """Runs no node of some images."""

    broken: tuple[str, ...] = ()

    def run(self, spec: NodeSpec, *, network: str | None = None) -> Container:
        if spec.image in self.broken:
            raise EngineError(f"there is no image {spec.image}.")
        return super().run(spec, network=network)


@pytest.fixture
def engine() -> Cracked:
    return Cracked(programs={"broker-data": Program(ends_with=0)})


def broker_of(engine: FakeEngine, image: str) -> Broker:
    return Broker(cast("Engine", engine), image=image, network="network", volume="data")


def with_a_quorum_queue(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    queue = {"name": "q", "type": "quorum", "messages_ready": 1, "messages_unacknowledged": 0, "arguments": {}}

    def ask(_method: str, path: str, *_: Any, **__: Any) -> list[Any]:
        return [] if path.startswith("policies") else [queue]

    monkeypatch.setattr(broker, "_ask", ask)


@pytest.mark.parametrize(("image", "after", "sampled"), [(OURS, OFFICIAL, (0.5, 5.0)), (OFFICIAL, OURS, (5.0, 0.5))])
def test_the_image_itself_says_how_old_the_counts_of_a_quorum_queue_are(
    engine: Cracked, monkeypatch: pytest.MonkeyPatch, image: str, after: str, sampled: tuple[float, float]
) -> None:
    # What the environment names for other stacks is another image.
    monkeypatch.setenv("HARNESS_RABBITMQ_IMAGE", OFFICIAL)
    broker = broker_of(engine, image)
    with_a_quorum_queue(monkeypatch, broker)
    broker.start()
    (before_count,) = broker.queues("/")
    broker.upgrade(after)
    (count,) = broker.queues("/")
    assert (before_count.sampled_s, count.sampled_s) == sampled


def test_the_data_are_opened_by_the_image_that_wrote_them(engine: Cracked) -> None:
    broker = broker_of(engine, "old")
    broker.start()
    broker.upgrade("new")
    broker.upgrade("old")
    assert [(spec.name, spec.image) for spec in engine.ran] == [
        ("broker-data", "old"),
        ("broker", "old"),
        ("broker-data", "old"),
        ("broker", "new"),
        ("broker-data", "new"),
        ("broker", "old"),
    ]


def test_an_image_that_does_not_run_is_not_asked_to_open_the_data_on_the_way_back(engine: Cracked) -> None:
    broker = broker_of(engine, "old")
    broker.start()
    engine.broken = ("new",)
    with pytest.raises(EngineError, match="there is no image new"):
        broker.upgrade("new")
    broker.upgrade("old")
    assert {spec.image for spec in engine.ran} == {"old"}


@pytest.mark.parametrize(("uid", "is_open"), [(os.getuid(), True), (54321, False)])
def test_a_user_changes_what_is_its_own_and_leaves_the_rest_alone(tmp_path: Path, uid: int, *, is_open: bool) -> None:
    data, programs = tmp_path / "data", tmp_path / "bin"
    for folder in (data, programs):
        folder.mkdir()
    (kept := data / "kept").touch(0o600)
    (programs / "id").write_text(f"#!/bin/sh\necho {uid}\n")
    (programs / "id").chmod(0o755)
    script = rabbitmq._LET_ALL_WRITE.replace(DATA, str(data))  # noqa: SLF001 - a container runs it.
    subprocess.run(["sh", "-c", script], env={"PATH": f"{programs}:{os.environ['PATH']}"}, check=True)
    assert (kept.stat().st_mode & 0o777 == 0o666) is is_open
