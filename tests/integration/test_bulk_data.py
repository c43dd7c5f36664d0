"""The import of orders, end to end: every row there, every chunk in its group, and every task accounted for."""

import json
import sqlite3
from contextlib import closing
from typing import Any

import pytest

from harness import Drive, Expect, Fate, Verdict
from harness.audit.results import Results, decode
from harness.running.run import play
from harness.stack.stack import Stack
from harness.wait import wait_until
from scenarios.bulk_data.scenario import scenario

pytestmark = [
    pytest.mark.docker,
    pytest.mark.stack(app=scenario.app, env=scenario.env, promise=scenario.promise, workers=2),
]
ORDERS = "/harness/run/app/orders.csv"


def query(stack: Stack, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(stack.folder.path / "app/app.sqlite3", timeout=10)) as connection:
        return connection.execute(statement).fetchall()


def send(stack: Stack, expect: Expect, **given: Any) -> str:
    sent = stack.producer.send("scenarios.bulk_data.import_orders", kwargs=given, expect=expect)
    assert sent.accepted
    return sent.task


def test_a_file_that_is_imported_twice_is_there_once(stack: Stack, results: Results) -> None:
    audit = play(scenario, stack, Drive(count=2, seed=7, options={"rows": 5000}))
    assert audit.verdict is Verdict.PASS, audit.text()
    assert audit.fates[Fate.OK] == audit.entries
    # The same once more, without the audit: groups, results and rows read by hand.
    states = {row.task: row for row in results.rows()}
    assert {row.status for row in states.values()} == {"SUCCESS"}
    groups = [json.loads(row.result or b"") for row in results.groups()]
    chunks = [[task for (task, _), _ in members] for _, members in groups]
    assert [len(one) for one in chunks] == [3, 3]
    assert len({task for one in chunks for task in one}) == 6
    for one in chunks:
        counts = [decode(states[task]) for task in one]
        assert sum(count["read"] for count in counts) == 5000
    # Two imports, their chunks, and their callbacks; what waits for a header leaves no row.
    assert len(states) == 2 + 6 + 2
    ((read, good, rejected, orders, cents, closings),) = query(
        stack, "SELECT read, good, rejected, orders, total_cents, closings FROM imports"
    )
    assert (read, good + rejected, closings) == (5000, 5000, 1)
    assert query(stack, "SELECT count(*), sum(quantity * unit_price_cents) FROM orders") == [(orders, cents)]
    assert query(stack, "SELECT count(*) FROM rejects") == [(rejected,)]
    assert 0 < rejected < good


def test_many_imports_of_one_file_at_once_leave_it_there_once(stack: Stack) -> None:
    audit = play(scenario, stack, Drive(count=40, seed=7, options={"rows": 200}))
    assert audit.verdict is Verdict.PASS, audit.text()
    # Of each import: the task, a chunk, what waits for it, and the callback. Two at a time had one import_id.
    assert audit.fates[Fate.OK] == audit.entries == 4 * 40
    totals = query(stack, "SELECT read, closings FROM imports ORDER BY number")
    assert totals == [(200, 1)] * 20
    # The last one to begin has all of its orders, and by now everybody else's.
    ((orders,),) = query(stack, "SELECT orders FROM imports ORDER BY number DESC LIMIT 1")
    assert query(stack, "SELECT count(*), count(DISTINCT version >> 40) FROM orders") == [(orders, 1)]


def test_a_killed_worker_costs_no_row_and_doubles_none(stack: Stack) -> None:
    killed = []

    def kill_one() -> bool:
        """Kill a worker that is at work, after both imports have ended.

        One that dies while it sends leaves a message of which nobody can say whether the broker has it: `unknown`.
        """
        results = [decode(row) for row in stack.results.rows() if row.status == "SUCCESS"]
        if sum("chunks" in result for result in results) < 2:
            return False
        ledger = stack.ledger
        for task in sorted(ledger.started() & ledger.open()):
            if victim := ledger.holder(task):
                next(worker for worker in stack.workers if worker.name == victim).kill()
                killed.append(task)
                return True
        return False

    class Killing(type(scenario)):  # type: ignore[misc]  # mypy takes no expression for a base class.
        """The same, and a worker is killed in the middle of it."""

        def finish(self, stack: Stack, drive: Drive) -> None:
            del stack, drive
            wait_until(kill_one, what="a worker has been killed at its work", timeout_s=30)

    audit = play(Killing(), stack, Drive(count=2, seed=7, options={"rows": 40_000}))
    assert audit.verdict is Verdict.PASS, audit.text()
    assert killed
    assert audit.fates[Fate.OK] == audit.entries
    assert query(stack, "SELECT read, closings FROM imports") == [(40_000, 1)]


def test_a_refused_file_is_a_failure_with_its_reason(stack: Stack, results: Results) -> None:
    refused = Expect(state="FAILURE", error="BadFile", effects=[])
    task = send(stack, refused, path=ORDERS, import_id="missing")
    (stack.folder.path / "app/orders.csv").write_text("order_id;sku\n1;TEA\n")
    other = send(stack, refused, path=ORDERS, import_id="semicolons")
    audit = stack.settle()
    # The first may run when the file is there already, and is refused for that.
    assert audit.verdict is Verdict.PASS, audit.text()
    assert audit.fates[Fate.FAILED] == audit.entries == 2
    assert stack.ledger.retries(task) == 0
    row = results.row(other)
    assert row is not None
    assert "its columns are separated by ';', not by ','" in str(decode(row))
    assert results.groups() == []
