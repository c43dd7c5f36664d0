"""The commands that prepare an app: what becomes of one that ends well, that fails, and that does not end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from harness.containers.app_node import AppNode
from harness.containers.engine import Engine, Status
from harness.errors import StartError
from harness.stack.preparation import prepare
from harness.wait import Clock
from tests.fakes.container import FakeEngine, Program

FINE = Program(says=lambda _: ["Applying shop.0001"], ends_with=0)
BROKEN = Program(says=lambda _: ["Traceback", "django.db.OperationalError: no"], ends_with=3)


@dataclass
class Workplace:
    """Runs commands on a fake engine, by a clock that only moves when it is waited for."""

    folder: Path
    said: list[str] = field(default_factory=list)
    now_s: float = 0.0
    meanwhile: Callable[[], object] = lambda: None
    """What happens while the command is waited for."""

    def prepare(self, engine: FakeEngine, *commands: str) -> None:
        app = AppNode(
            image="shop:1",
            app="shop.app",
            app_folder=self.folder,
            run_folder=self.folder,
            network="network",
            broker_url="amqp://inside",
            env={"KEY": "value"},
        )
        clock = Clock(now=lambda: self.now_s, sleep=self.sleep)
        logs = self.folder
        prepare(cast("Engine", engine), app, commands, logs=logs, say=self.said.append, timeout_s=20, clock=clock)

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.meanwhile()


@pytest.fixture
def work(tmp_path: Path) -> Workplace:
    return Workplace(tmp_path)


def are_gone(engine: FakeEngine) -> bool:
    return all(container.state().status is Status.GONE for container in engine.started)


def test_each_command_runs_once_in_this_order_with_the_apps_settings_and_leaves_its_log(work: Workplace) -> None:
    engine = FakeEngine(programs={"prepare-1": FINE, "prepare-2": FINE})
    work.prepare(engine, "python manage.py migrate", "python -c 'print(1, 2)'")
    assert [spec.command for spec in engine.ran] == [
        ("python", "manage.py", "migrate"),
        ("python", "-c", "print(1, 2)"),
    ]
    first = engine.ran[0]
    assert (first.image, first.working_dir, first.env["KEY"]) == ("shop:1", "/app", "value")
    assert (work.folder / "prepare-1.log").read_text() == "Applying shop.0001\n"
    assert (work.folder / "prepare-2.log").exists()
    assert are_gone(engine)
    assert work.said == []


def test_a_command_that_fails_is_an_error_with_its_code_and_its_last_words_and_no_other_runs(work: Workplace) -> None:
    engine = FakeEngine(programs={"prepare-1": BROKEN, "prepare-2": FINE})
    with pytest.raises(StartError) as raised:
        work.prepare(engine, "python manage.py migrate", "python -V")
    assert str(raised.value) == (
        "the command `python manage.py migrate`, which prepares the app, exited with 3 (prepare-1.log). "
        "Its last log lines:\nTraceback\ndjango.db.OperationalError: no"
    )
    assert len(engine.ran) == 1
    assert (work.folder / "prepare-1.log").read_text().endswith("OperationalError: no\n")
    assert are_gone(engine)


@pytest.mark.parametrize("words", ["Read-only file system", "unable to open database file"])
def test_a_command_that_cannot_write_is_told_how_it_can(work: Workplace, words: str) -> None:
    engine = FakeEngine(programs={"prepare-1": Program(says=lambda _: [words], ends_with=1)})
    with pytest.raises(StartError, match=r"exited with 1 .*\n.*\n.*writable=True"):
        work.prepare(engine, "python manage.py migrate")


def test_a_command_that_does_not_end_is_told_of_after_a_second_and_ended_in_time(work: Workplace) -> None:
    engine = FakeEngine(programs={"prepare-1": Program()})
    with pytest.raises(StartError, match=r"did not end within 20 s, and was ended\. It said nothing\."):
        work.prepare(engine, "python manage.py shell")
    assert [line.partition(": ")[2] for line in work.said] == ["1 s so far", "9 s so far", "17 s so far"]
    assert work.said[0].startswith("preparing with `python manage.py shell`")
    assert are_gone(engine)


def test_a_command_that_is_removed_from_outside_is_an_error(work: Workplace) -> None:
    engine = FakeEngine(programs={"prepare-1": Program()})

    def remove() -> None:
        engine.started[0].remove()

    work.meanwhile = remove
    with pytest.raises(StartError, match="prepares the app, was removed"):
        work.prepare(engine, "sleep 5")
