"""Sending from the shell: what is understood, where it is journaled, and how results are waited for. No broker here."""

import json
import socket
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.audit import results
from harness.audit.run_folder import RunFolder
from harness.containers.ownership import Owner
from harness.errors import UsageError
from harness.records import journal
from harness.records.event import Kind
from harness.records.journal import Writer
from harness.running import sending
from harness.running.playground import Playground
from harness.running.sending import Answer, Order

DEAD = replace(Owner.here(), pid=2**22 + 1)


@pytest.fixture
def ground(tmp_path: Path) -> Playground:
    """Return a stack that is up, but for its broker."""
    folder = RunFolder.create(tmp_path, "up")
    folder.write("run.json", {})
    results.create(folder.results)
    with closing(sqlite3.connect(folder.results)) as connection, connection:
        connection.execute(
            "CREATE TABLE celery_taskmeta (task_id VARCHAR(155), status VARCHAR(50), result BLOB, date_done DATETIME)"
        )
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return Playground(
        owner=str(Owner.here()),
        app="shop.app",
        folder=str(folder.path),
        results=str(folder.results),
        amqp=f"amqp://guest:guest@127.0.0.1:{port}/up",
    )


def record(ground: Playground, task: str, status: str, result: Any) -> None:
    with closing(sqlite3.connect(ground.results)) as connection, connection:
        connection.execute(
            "INSERT INTO celery_taskmeta VALUES (?, ?, ?, '2026-01-01 00:00:00')",
            (task, status, result if isinstance(result, bytes) else json.dumps(result).encode()),
        )


def test_what_is_sent_is_in_a_journal_of_its_own_with_the_routes_of_the_app(ground: Playground) -> None:
    folder = Path(ground.folder) / "journal"
    with closing(Writer(folder, node="worker-1", role="worker")) as worker:
        worker.write(Kind.READY, queues={}, default_route={"queue": "shop", "routing_key": "shop"})
    outcomes = [sent.outcome for sent in sending.send(ground, Order(name="shop.pay", args=[1], count=2))]
    assert outcomes == [Kind.REFUSED, Kind.REFUSED]
    mine = [event for event in journal.read(folder) if event.node == sending.NODE]
    assert [event.kind for event in mine] == [Kind.OPENED, Kind.UP, *[Kind.INTENDED, Kind.REFUSED] * 2]
    assert [event.n for event in mine] == list(range(6))
    assert mine[2].data == {"name": "shop.pay", "queue": "shop"}


def test_results_are_told_as_they_come_and_what_has_not_ended_is_left_out(ground: Playground) -> None:
    record(ground, "a", "SUCCESS", {"paid": "Zoë"})
    record(ground, "b", "FAILURE", {"exc_type": "OSError", "exc_message": [30, "Read-only file system"]})
    record(ground, "c", "SUCCESS", b"\x80\x04")
    record(ground, "d", "STARTED", None)
    assert list(sending.answers(ground, ["a", "b", "c", "d", "e"], 0)) == [
        Answer(task="a", status="SUCCESS", text='{"paid": "Zoë"}'),
        Answer(task="b", status="FAILURE", text="OSError: 30, Read-only file system"),
        Answer(task="c", status="SUCCESS", text="a result that is not JSON"),
    ]


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ('"a@b.example"', "a@b.example"), ('{"x": [null]}', {"x": [None]})]
)
def test_an_argument_is_a_json_value(text: str, value: Any) -> None:
    assert sending.parsed(text) == value


def test_an_argument_that_is_none_says_how_a_text_is_written() -> None:
    with pytest.raises(UsageError, match=r"a@b.example is no JSON .* in double quotes: '\"a@b.example\"'"):
        sending.parsed("a@b.example")


@pytest.mark.parametrize(
    ("changes", "text"),
    [({"owner": str(DEAD)}, "nothing is up here"), ({"folder": ""}, "still being brought up")],
)
def test_a_stack_that_is_not_up_takes_nothing(ground: Playground, changes: dict[str, str], text: str) -> None:
    assert sending.ready(ground) is ground
    with pytest.raises(UsageError, match=text):
        sending.ready(replace(ground, **changes))
    with pytest.raises(UsageError, match="nothing is up here"):
        sending.ready(None)
