"""Two versions of an app: who sends to whom, and in which manner."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import pytest

from harness.audit.audit import Audit
from harness.audit.run_folder import RunFolder
from harness.records.route import Route, Routes
from harness.records.verdict import Fate, Verdict
from harness.running import version_skew
from harness.running.survive import OneTask, Subject
from harness.running.version_skew import Version
from harness.stack.stack import StackSpec


class FakeStack:
    """A stack whose workers tell their routes and their serializer, and that notes what is sent."""

    made: ClassVar[list["FakeStack"]] = []

    def __init__(self, _session: object, spec: StackSpec, folder: RunFolder, **_: object) -> None:
        """Note the workers' app."""
        self.spec, self.folder = spec, folder
        self.sent: list[str] = []
        self.manner: tuple[Any, Any] = (None, None)
        routes = Routes(default=Route.to_queue(f"of-{spec.app}"))
        self.producer = SimpleNamespace(routes=routes, serializer=None, send=self._send)
        said = {"worker-1": {"task_serializer": "pickle"} if spec.app == "new" else {}}
        self.ledger = SimpleNamespace(settings=said)
        self.made.append(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _send(self, name: str, *_: object) -> None:
        self.sent.append(name)
        self.manner = self.producer.routes.of(name).place, self.producer.serializer

    def settle(self, *_: object, **asked: Callable[[], Any]) -> Audit:
        assert list(asked["effects"]()) == []
        assert list(asked["checks"]()) == []
        fates = dict.fromkeys(Fate, 0)
        return Audit(name="x", entries=3, fates=fates, findings=(), e2e_ms={}, workers={}, memory_mb={}, witnesses={})


def version(name: str, *tasks: str) -> Version:
    subjects = [Subject(name=task, stack=StackSpec(app=name), scenario=OneTask(task, [], {})) for task in tasks]
    return Version(name=name, subjects=subjects)


def test_each_version_sends_to_its_own_workers_and_then_to_the_other_ones_in_its_own_manner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(version_skew, "Stack", FakeStack)
    monkeypatch.setattr(FakeStack, "made", [])
    session: Any = None
    runs = version_skew.skew(session, version("old", "hello"), version("new", "hello", "welcome"), tmp_path)
    assert [run.title for run in runs] == [
        "old producers, old workers",
        "new producers, new workers",
        "new producers, old workers",
        "old producers, new workers",
    ]
    assert [run.verdict for run in runs] == [Verdict.PASS] * 4
    assert [(one.spec.app, sorted(set(one.sent)), one.manner) for one in FakeStack.made] == [
        ("old", ["hello"], ("of-old", "json")),
        ("new", ["hello", "welcome"], ("of-new", "pickle")),
        ("old", ["hello", "welcome"], ("of-new", "pickle")),
        ("new", ["hello"], ("of-old", "json")),
    ]
    assert len(FakeStack.made[0].sent) == version_skew.STEPS
