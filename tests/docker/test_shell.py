"""The shell door with a real engine: what it prints, how it ends, and that nothing is left behind."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.containers.engine import Engine
from harness.containers.ownership import sweep
from harness.wait import wait_until

pytestmark = pytest.mark.docker
ROOT = Path(__file__).parents[2]
StartedBy = Callable[[int], list[str]]
HARNESS = [sys.executable, "-m", "harness"]


def harness(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HARNESS, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def running(started_by: StartedBy, runs: Path) -> subprocess.Popen[str]:
    """Start a run, and return it in the middle of its work."""
    command = [*HARNESS, "run", "emails", "--count", "20000", "--runs", str(runs)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_until(lambda: any(runs.glob("*/effects/mail/*.eml")), what="mails arrive", timeout_s=120)
    assert len(started_by(process.pid)) >= 3
    return process


def test_a_run_passes_says_so_and_can_be_audited_again_elsewhere(tmp_path: Path) -> None:
    done = harness("run", "emails", "--count", "30", "--seed", "7", "--runs", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (path for path in tmp_path.iterdir() if path.name != "latest")
    assert (tmp_path / "latest").resolve() == folder
    assert f"report: {folder / 'report.html'}" in done.stdout
    assert "Passed: all 30 tasks are ok." in (folder / "report.html").read_text()
    assert "verdict" in done.stdout
    first = (folder / "audit.json").read_bytes()
    assert json.loads(first)["fates"]["ok"] == 30
    assert (folder / "logs" / "worker-1.log").stat().st_size
    copy = shutil.copytree(folder, tmp_path / "elsewhere")
    (copy / "audit.json").unlink()
    assert harness("audit", copy).returncode == 0
    assert (copy / "audit.json").read_bytes() == first


def test_a_run_is_broken_at_a_set_time_and_waits_until_the_fault_is_over(tmp_path: Path) -> None:
    ran = harness("run", "emails", "--count", "20", "--fault", "pause-worker@0s+1500ms", "--runs", tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    folder = tmp_path / "latest"
    (fault,) = json.loads((folder / "faults.json").read_text())["faults"]
    assert (fault["fault"], fault["node"], fault["missing"]) == ("pause-worker", "worker-1", None)
    assert fault["healed_t"] - fault["injected_t"] >= 1.5
    assert json.loads((folder / "run.json").read_text())["faults"] == ["pause-worker@0s+1.5s"]
    refused = harness("run", "emails", "--fault", "pause-wroker@0s", "--runs", tmp_path)
    assert refused.returncode == 2
    assert "no stack has a node 'wroker'" in refused.stderr


SHOPPING = """
from celery import Celery
from harness import Expect, Scenario

app = Celery("shop")
app.conf.worker_prefetch_multiplier = 1


@app.task(name="shop.pay")
def pay(amount):
    return amount


class Shopping(Scenario):
    name = "shopping"
    app = "shop"
    count = 20

    def step(self, producer, number, seed):
        producer.send("shop.pay", [number], expect=Expect(result=number))


scenario = Shopping()
"""


def test_chaos_that_a_safe_app_bears_passes_with_the_faults_of_its_seed(tmp_path: Path) -> None:
    ran = harness("run", "emails", "--count", "30", "--chaos", "--seed", "13", "--runs", tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    about = json.loads((tmp_path / "latest" / "run.json").read_text())
    assert about["chaos"] is True
    assert f"chaos, seed 13: {', '.join(about['faults'])}\n" in ran.stdout
    accounts = json.loads((tmp_path / "latest" / "faults.json").read_text())["faults"]
    assert sorted(one["planned"] for one in accounts) == sorted(about["faults"])
    assert [one["missing"] for one in accounts] == [None] * len(accounts)


@pytest.mark.catalogue
def test_chaos_that_an_unsafe_app_does_not_bear_shrinks_to_a_test_that_fails(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOPPING)
    written = tmp_path / "test_shopping.py"
    said = ("--chaos", "--seed", "3", "--app-dir", tmp_path, "--runs", tmp_path / "runs")
    ran = harness("run", "shop", *said, "--shrink", "--write-test", written)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "and none of them can be left out" in ran.stdout
    (again,) = [line for line in ran.stdout.splitlines() if line.startswith("harness run shop ")]
    assert again.count("--fault") == 1
    assert "kill-worker" in again
    pytest_ = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", str(written), f"--rootdir={tmp_path}"]
    tested = subprocess.run(pytest_, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert tested.returncode == 1, tested.stdout + tested.stderr
    assert "lost" in tested.stdout


@pytest.mark.parametrize(("number", "times"), [(signal.SIGINT, 1), (signal.SIGTERM, 1), (signal.SIGINT, 20)])
def test_an_interrupted_run_takes_everything_down(
    started_by: StartedBy, tmp_path: Path, number: signal.Signals, times: int
) -> None:
    process = running(started_by, tmp_path)
    for _time in range(times):
        process.send_signal(number)
        # Somebody who is impatient.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.1)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert started_by(process.pid) == []


def test_what_a_killed_run_left_is_swept_by_the_next_start(
    engine: Engine, started_by: StartedBy, tmp_path: Path
) -> None:
    process = running(started_by, tmp_path)
    process.kill()
    process.communicate(timeout=60)
    assert started_by(process.pid)
    assert sweep(engine)
    assert started_by(process.pid) == []


def test_an_app_that_does_not_import_is_one_clear_error(tmp_path: Path) -> None:
    done = harness("run", "emails", "--app", "no.such.app", "--runs", tmp_path)
    assert done.returncode == 2
    assert "No module named 'no'" in done.stderr
    assert "worker-1 exited" in done.stderr
    assert 'File "' not in done.stderr.split("last log lines")[0]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a file system of its own")
def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(full)], check=True)
    try:
        (full / "filler").write_bytes(b"x" * 32_768)
        done = harness("run", "emails", "--count", "5", "--runs", full)
    finally:
        subprocess.run(["umount", "--lazy", str(full)], check=True)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert f"MB are free at {full}" in done.stderr
