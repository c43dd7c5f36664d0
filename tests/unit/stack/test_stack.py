"""What a stack does without an engine: how it asks for the effects, and what it refuses."""

import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from harness.audit import results
from harness.audit.run_folder import RunFolder
from harness.containers.beat import FastClock
from harness.errors import UsageError
from harness.records.event import Settings
from harness.records.expectation import Effect, Promise
from harness.records.values import Json
from harness.records.verdict import Verdict
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec

if TYPE_CHECKING:
    from harness.audit.audit import Audit

NO_SESSION = cast("SharedParts", None)
Settle = Callable[[Callable[[], Iterable[Effect]]], "Audit"]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Return the folder of a run without any task."""
    folder = RunFolder.create(tmp_path, "payments")
    folder.write("run.json", {"name": "payments", "promise": Promise().to_json(), "nodes": []})
    results.create(folder.results)
    return folder


@pytest.fixture
def settle(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> Settle:
    """Settles a stack whose broker is at rest and empty."""
    monkeypatch.setattr(Stack, "task_queues", lambda _: [])
    monkeypatch.setattr(Stack, "look", lambda _, _queues: {})
    stack = Stack(NO_SESSION, StackSpec(app="shop.app"), folder)
    return lambda effects: stack.settle(effects=effects)


def lines(folder: RunFolder) -> list[dict[str, Json]]:
    return [json.loads(line) for line in (folder.effects / "seen.jsonl").read_text().splitlines()]


ROW = Effect(key="order-1", task="t-1")


def test_effects_are_written_down_line_by_line(settle: Settle, folder: RunFolder) -> None:
    settle(lambda: [ROW, Effect(key="order-2", kind="file")])
    assert lines(folder) == [
        {"key": "order-1", "task": "t-1", "kind": "row"},
        {"key": "order-2", "task": None, "kind": "file"},
    ]


def fails() -> Iterable[Effect]:
    raise ConnectionError("the shop's database is gone")


def fails_midway() -> Iterator[Effect]:
    yield ROW
    raise ConnectionError("the shop's database is gone")


def sees_no_effect() -> Iterable[Effect]:
    return [ROW, cast("Effect", "order-2")]


def sees_a_key_that_is_no_json() -> Iterable[Effect]:
    return [ROW, Effect(key=cast("str", uuid.uuid4()))]


@pytest.mark.parametrize(
    ("effects", "seen", "reason"),
    [
        (fails, 0, "ConnectionError: the shop's database is gone"),
        (fails_midway, 1, "ConnectionError: the shop's database is gone"),
        (sees_no_effect, 1, "AttributeError"),
        (sees_a_key_that_is_no_json, 1, "TypeError"),
    ],
)
def test_where_looking_for_effects_fails_what_was_seen_stays_and_the_audit_is_not_a_pass(
    settle: Settle, folder: RunFolder, effects: Callable[[], Iterable[Effect]], seen: int, reason: str
) -> None:
    audited = settle(effects)
    *rows, last = lines(folder)
    assert rows == [ROW.to_json()] * seen
    assert last["unseen"].startswith(reason)
    (unread,) = [finding for finding in audited.findings if finding.code == "effects-damaged"]
    assert unread.verdict is Verdict.UNKNOWN


def test_a_stack_that_is_not_running_says_so(folder: RunFolder) -> None:
    stack = Stack(NO_SESSION, StackSpec(app="shop.app"), folder)
    with pytest.raises(UsageError, match="not running"):
        _ = stack.login
    with pytest.raises(UsageError, match=r"no web producer; start one with add_web\(\)"):
        _ = stack.web
    assert stack.nodes() == []


def test_beat_has_one_clock(folder: RunFolder) -> None:
    stack = Stack(NO_SESSION, StackSpec(app="shop.app"), folder)
    with pytest.raises(UsageError, match="beat has one clock"):
        stack.add_beat(ahead_s=60, clock=FastClock(start_t=0, speed=2))


@pytest.mark.parametrize(
    ("own", "options", "told"),
    [(8, None, True), (None, None, False), (2, None, False), (8, ["--concurrency=2"], False)],
)
def test_it_is_told_once_that_the_default_concurrency_wins_over_the_apps(
    own: int | None, options: list[str] | None, *, told: bool
) -> None:
    said: list[str] = []
    session = SharedParts(said.append)
    for _ in range(2):
        settings = Settings(concurrency=2, worker_concurrency=own)
        session.tell_concurrency(StackSpec(app="shop.app", options=options), [settings])
    assert len(said) == told
    assert all("--concurrency=2 wins over the app's worker_concurrency of 8" in line for line in said)
