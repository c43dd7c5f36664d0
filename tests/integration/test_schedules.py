"""Scheduled tasks: by beat, and with a time of their own. Each at its time, once, and not before."""

import sqlite3
from contextlib import closing

import pytest

from harness import Drive, Fate, Verdict
from harness.audit.results import Results
from harness.running.run import play
from harness.stack.stack import Stack
from scenarios.schedules.scenario import scenario

# So many that a worker which holds a few messages at a time would let some expire in the queue, without a row.
DRIVE = Drive(count=240, seed=7)
pytestmark = [
    pytest.mark.docker,
    pytest.mark.stack(app=scenario.app, env=scenario.env, options=scenario.worker_options, promise=scenario.promise),
]


def test_each_reminder_and_each_tick_comes_in_time_once(stack: Stack, results: Results) -> None:
    audit = play(scenario, stack, DRIVE)
    assert audit.verdict is Verdict.PASS, audit.text()
    ticks = stack.ledger.ticks
    assert audit.entries == DRIVE.count + sum(ticks.values())
    # A quarter of the reminders had expired before their time came, and nothing else went wrong.
    assert audit.fates[Fate.FAILED] == results.count("REVOKED") == DRIVE.count / 4
    assert audit.fates[Fate.OK] == results.count("SUCCESS") == audit.entries - DRIVE.count / 4
    # The same from the app's own database, by hand.
    with closing(sqlite3.connect(stack.folder.path / "app" / "app.sqlite3")) as connection:
        ((reminders, early),) = connection.execute(
            "SELECT count(*), coalesce(sum(done_at < due_at), 0) FROM scheduled WHERE due_at IS NOT NULL"
        )
        ((hours,),) = connection.execute("SELECT count(*) FROM scheduled WHERE key LIKE 'hourly-report-%'")
    assert (reminders, early) == (DRIVE.count * 3 / 4, 0)
    # Where the machine is so slow that another beat was needed, each may have seen an hour.
    assert hours == ticks["hourly-report"] >= 1
