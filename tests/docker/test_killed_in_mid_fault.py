"""The process of a harness is killed while its stack is broken in every way at once: nothing stays broken."""

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from harness.audit.audit import audit
from harness.audit.run_folder import RunFolder
from harness.containers.engine import Engine
from harness.containers.ownership import sweep
from harness.records.verdict import Verdict

pytestmark = [pytest.mark.docker, pytest.mark.catalogue]

FAULTS = (
    'Pause("worker-1")',
    'Partition("worker-2")',
    "LockResults()",
    "MemoryAlarm()",
    "DiskAlarm()",
    "FullDisk()",
    'ClockJump("worker-3", seconds=3600)',
    'Latency("worker-3", seconds=1)',
    "RejectMail(451)",
)
BROKEN = f"""
import sys
from pathlib import Path
from harness.audit.run_folder import RunFolder
from harness.faults import *
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec

spec = StackSpec(
    app="faulty", app_folder=Path("tests/docker/apps"), workers=3, mailbox=True,
    own_broker=True, small_disk=True, link=True, movable_clocks=True,
)
folder = RunFolder.create(Path(sys.argv[1]), "broken")
with SharedParts(lambda line: None) as session, Stack(session, spec, folder) as stack:
    assert stack.producer.send("act", kwargs={{"key": "before"}}).accepted
    for fault in ({", ".join(FAULTS)}):
        stack.inject(fault)
    print(folder.path, flush=True)
    sys.stdin.read()
"""


def test_nothing_stays_paused_cut_off_limited_or_locked(
    tmp_path: Path, client: docker.DockerClient, engine: Engine, started_by: Callable[[int], list[str]]
) -> None:
    command = [sys.executable, "-c", BROKEN, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            folder = RunFolder(Path(process.stdout.readline().strip()))
            ours = started_by(process.pid)
            assert "paused" in {one.status for one in client.containers.list(all=True) if one.id in ours}
            assert not can_be_written(folder.results)
        finally:
            process.kill()
    assert set(started_by(process.pid)) == set(ours)
    sweep(engine)
    assert started_by(process.pid) == []
    assert can_be_written(folder.results)
    with sqlite3.connect(folder.results) as results:
        assert results.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    # Nobody saw the end of the run, so nobody says that it passed; and the evidence can be read.
    assert json.loads((folder.path / "run.json").read_text())["stack"]["own_broker"]
    assert audit(folder).verdict is not Verdict.PASS


def can_be_written(results: Path) -> bool:
    """Return whether a writer gets the result tables."""
    connection = sqlite3.connect(results, timeout=0)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.rollback()
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
    return True
