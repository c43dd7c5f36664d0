"""The benchmarks of the load door: what the generator can do, what the results cost, and whether the knee repeats."""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.audit.results import Results
from harness.audit.run_folder import RunFolder
from harness.containers.app_node import RUN_INSIDE
from harness.measure.stages import Histogram
from harness.records.values import Json
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec
from harness.wait import wait_until
from tests.bench.apps.waits import CAPACITY_PER_S

Figure = tuple[str, str, str, bool]
"""What was measured, the figure, its target, and whether it was met."""
HERE = Path(__file__).parent
APPS = HERE / "apps"
SENDERS = 64
ROUNDS = 3
PREFILLED = 6_000
MANY = 100_000
LOSSY = 20_000
_LIMIT_S = 1_200


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one `locust` command left."""

    exit_code: int
    load: Mapping[str, Json]
    audit: Mapping[str, Json]
    said: str

    @property
    def leg(self) -> Mapping[str, Json]:
        """The figures of the last leg."""
        legs: Sequence[Mapping[str, Json]] = self.load["legs"]
        return legs[-1]


def locust(root: Path, *options: str, file: str = "load_noop.py", watch: list[float] | None = None) -> Run:
    """Run `locust` as a user would. `watch` is given the memory of its process, in MB, once a second."""
    command = [sys.executable, "-m", "locust", "-f", str(APPS / file), "--app-dir", str(APPS), "--runs", str(root)]
    log, before = root / "locust.log", (root / "latest").resolve()
    with log.open("w") as out:
        process = subprocess.Popen([*command, "--headless", *options], stdout=out, stderr=subprocess.STDOUT)
        try:
            _wait(process, watch)
        finally:
            process.kill()
            process.wait()
    folder = (root / "latest").resolve()
    if folder == before or not (folder / "load.json").exists():
        raise RuntimeError(f"locust ended with {process.returncode} and left no account:\n{log.read_text()}")
    load, audit = (json.loads((folder / name).read_text()) for name in ("load.json", "audit.json"))
    return Run(exit_code=process.returncode, load=load, audit=audit, said=log.read_text())


def _wait(process: "subprocess.Popen[bytes]", watch: list[float] | None) -> None:
    until_s = time.monotonic() + _LIMIT_S
    seen = psutil.Process(process.pid)
    while process.poll() is None:
        if time.monotonic() > until_s:
            raise RuntimeError(f"locust did not end within {_LIMIT_S} s")
        if watch is not None:
            with_ended = seen.is_running() and seen.status() != psutil.STATUS_ZOMBIE
            if with_ended:
                watch.append(seen.memory_info().rss / 1e6)
        time.sleep(1)


def publish(session: SharedParts, root: Path) -> Iterator[Figure]:
    """Compare publishing through Locust, as fast as its senders can, with greenlets that only publish, in turns."""
    rounds = []
    for _ in range(ROUNDS):
        celery, kombu = (_bare(session, root, how) for how in ("celery", "kombu"))
        run = locust(root, "--closed", "-u", str(SENDERS), "--celery-workers=0", "--drain-timeout=1s", "-t", "9s")
        rounds.append((run.leg["offered"] / run.leg["duration_s"], celery, kombu))
    ours, celery, kombu = (statistics.median(column) for column in zip(*rounds, strict=True))
    by_celery, by_kombu = (statistics.median(one[0] / one[which] for one in rounds) for which in (1, 2))
    said = f"{ours:.0f}/s beside {celery:.0f}/s by Celery's send_task: {by_celery:.2f}"
    yield f"publishing through Locust, {SENDERS} senders", said, ">= 0.85", by_celery >= 0.85
    said = f"{ours:.0f}/s beside {kombu:.0f}/s by Kombu alone: {by_kombu:.2f}"
    yield "the same, beside a message that was made before", said, ">= 0.85", by_kombu >= 0.85


def _bare(session: SharedParts, root: Path, how: str) -> float:
    """Messages a second by greenlets that do nothing else."""
    with Stack(session, StackSpec(app="noop", app_folder=APPS, workers=0), RunFolder.create(root, "bare")) as stack:
        command = [sys.executable, "-m", "gevent.monkey", "--module", "tests.bench.bare"]
        script = [*command, stack.login.amqp_url_outside, str(SENDERS), "8", how]
        return float(subprocess.run(script, check=True, capture_output=True, text=True).stdout)


def pace(_session: SharedParts, root: Path) -> Iterator[Figure]:
    """Measure an open loop at 300/s on the whole stack: the share sent, the lateness, and the longest stall."""
    stalls = root / "stalls.json"
    os.environ["HARNESS_BENCH_STALLS"] = str(stalls)
    try:
        with _asleep(root / "asleep", rate=300) as lateness_p99_s:
            run = locust(root, "--rate=300", "-t", "20s", file="load_stalls.py")
            asleep_ms = lateness_p99_s(run) * 1000
    finally:
        del os.environ["HARNESS_BENCH_STALLS"]
    leg = run.leg
    planned = leg["rate"] * leg["duration_s"]
    achieved = (leg["offered"] - leg["dropped"]) / planned
    yield "300/s: sent of what was planned", f"{achieved:.4f}", ">= 0.99", achieved >= 0.99
    late_ms = leg["lateness_p99_s"] * 1000
    yield "300/s: lateness p99", f"{late_ms:.1f} ms", "<= 5 ms", late_ms <= 5
    said = f"{asleep_ms:.1f} ms; the host took {leg['stolen']:.0%} of the processor time"
    yield "beside it, lateness p99 of a loop that only sleeps", said, "stated", True
    seen = json.loads(stalls.read_text())
    said = f"{seen['longest_ms']:.1f} ms of CPU ({seen['longest_in']})"
    yield "300/s: longest stall of the hub by a greenlet", said, "<= 20 ms", seen["longest_ms"] <= 20


@contextmanager
def _asleep(file: Path, rate: float) -> Iterator[Callable[[Run], float]]:
    """Start a process that only wakes up at this rate; yield a function for its p99 lateness during a run."""
    sleeper = subprocess.Popen([sys.executable, "-m", "tests.bench.asleep", str(rate), str(file)])

    def lateness_p99_s(run: Run) -> float:
        sleeper.terminate()
        sleeper.wait(timeout=10)
        # As the load's own, without what it takes to begin.
        begin_t = run.load["samples"][0]["t"] + 1
        end_t = begin_t + run.leg["duration_s"]
        late = Histogram()
        for line in file.read_text().splitlines():
            due_t, late_s = map(float, line.split())
            if begin_t <= due_t <= end_t:
                late.record(late_s)
        return late.quantile_s(0.99)

    try:
        yield lateness_p99_s
    finally:
        sleeper.kill()
        sleeper.wait()


def results(session: SharedParts, root: Path) -> Iterator[Figure]:
    """Tasks a second of one worker: with the results as the harness sets them up, by Celery's default, and without."""
    rates: dict[str, list[float]] = {"harness": [], "default": [], "off": []}
    for _ in range(ROUNDS):
        for variant, measured in rates.items():
            measured.append(_drained(session, root, variant))
    ours, default, off = (statistics.median(rates[variant]) for variant in ("harness", "default", "off"))
    said = f"{ours:.0f}/s beside {default:.0f}/s: {ours / default:.2f}"
    yield "worker with SQLite results, beside Celery's default", said, ">= 1.8", ours / default >= 1.8
    yield "the same, beside no results", f"{ours:.0f}/s beside {off:.0f}/s: {ours / off:.2f}", "stated", True


def _drained(session: SharedParts, root: Path, variant: str) -> float:
    """Fill a queue, start one worker, and return the executions per second between a tenth and the end."""
    env = {}
    if variant == "default":
        # A file that was not put into WAL, by a path that the agent does not recognize and so does not tune, and
        # without the app's own callback: what is left is Celery's default.
        env["CELERY_RESULT_BACKEND"] = f"db+sqlite:///{RUN_INSIDE}/app/../app/default.sqlite3"
        env["HARNESS_SETTINGS"] = json.dumps({"database_engine_callback": None})
    elif variant == "off":
        env["HARNESS_SETTINGS"] = json.dumps({"task_ignore_result": True})
    folder = RunFolder.create(root, f"results-{variant}")
    spec = StackSpec(app="noop", app_folder=APPS, workers=0, env=env)
    with Stack(session, spec, folder) as stack:
        for _ in range(PREFILLED):
            stack.producer.send("noop")
        stack.add_worker()
        first = _reach(stack, PREFILLED // 10)
        last = _reach(stack, PREFILLED)
    if variant == "default" and Results.of_file(folder.path / "app" / "default.sqlite3").count() != PREFILLED:
        raise RuntimeError("the worker did not store its results where Celery's default was to be measured")
    return (last[1] - first[1]) / (last[0] - first[0])


def _reach(stack: Stack, count: int) -> tuple[float, int]:
    """When so many tasks had ended, and how many had by then."""

    def reached() -> int | None:
        ended = stack.ledger.ended
        return ended if ended >= count else None

    ended = wait_until(reached, what=f"{count} tasks have ended", timeout_s=240, interval_s=0.05)
    return time.monotonic(), ended


def many(_session: SharedParts, root: Path) -> Iterator[Figure]:
    """Send a hundred thousand tasks in one run."""
    memory: list[float] = []
    run = locust(root, "--rate=250", "-t", f"{MANY // 250}s", "--celery-workers=2", watch=memory)
    fates = {fate: count for fate, count in run.audit["fates"].items() if count}
    sent = run.load["counts"]["sent"]
    all_ok = fates == {"ok": MANY} and sent == MANY
    yield f"{MANY:,} tasks in one run", f"{sent:,} sent: {fates}", "all ok", all_ok
    # The first tenth is for imports, connections and the tables of Locust.
    early, late = memory[len(memory) // 10], max(memory[-len(memory) // 4 :])
    said = f"{early:.0f} MB after a tenth, {late:.0f} MB at most in the last quarter: {late / early:.3f}"
    yield "the same, memory of the load process", said, "<= 1.05", late / early <= 1.05


def knee(_session: SharedParts, root: Path) -> Iterator[Figure]:
    """Find the knee of a pool with a known capacity three times."""
    options = ("--find-knee", "--rate=10", "--objective=e2e:p99<2s", "--probe=10s")
    found = [locust(root, *options, file="load_waits.py") for _ in range(ROUNDS)]
    yield _agreement("the knee of three runs", found)
    lowest, highest = (which(_knees(found)) / CAPACITY_PER_S for which in (min, max))
    said = f"{lowest:.2f} to {highest:.2f} of the {CAPACITY_PER_S:g}/s that follow from what a task takes"
    yield "the same, beside the truth", said, "0.9 to 1.1", 0.9 <= lowest <= highest <= 1.1
    yield from _sentences(found)


def knee_of_machine(_session: SharedParts, root: Path) -> Iterator[Figure]:
    """Find the knee three times where the machine limits both the stack and the load test."""
    found = [locust(root, "--find-knee", "--rate=100", "--objective=e2e:p99<500ms") for _ in range(ROUNDS)]
    yield _agreement("the knee of three runs, where the machine is the limit", found)
    yield from _sentences(found)


def _knees(found: Sequence[Run]) -> list[float]:
    return [run.load["search"]["knee"]["rate"] or 0.0 for run in found]


def _agreement(what: str, found: Sequence[Run]) -> Figure:
    rates = _knees(found)
    apart = max(rates) / min(rates) - 1 if min(rates) else math.inf
    said = f"{', '.join(f'{rate:g}/s' for rate in rates)}: {apart:.1%} apart"
    return what, said, "<= 10 %", apart <= 0.10


def _sentences(found: Sequence[Run]) -> Iterator[Figure]:
    for run in found:
        most = max(leg["stolen"] for leg in run.load["legs"])
        said = f"{run.load['search']['text']} At most {most:.0%} of the processor time went to others."
        yield "its sentence", said, "stated", True


def fleet(_session: SharedParts, root: Path) -> Iterator[Figure]:
    """Check ten times whether the generators, the journal and the audit of a master and two workers count the same."""
    agreed, late, seen = 0, 0, []
    for _ in range(10):
        run = locust(root, "--processes=2", "--rate=100", "-t", "5s")
        counts = run.load["counts"]
        generated = (counts["offered"], counts["sent"], counts["accepted"])
        figures = (*generated, run.audit["entries"], run.audit["fates"]["ok"])
        seen.append(figures)
        # A machine that is busy makes a late generator, and exit code 3; the counts are exact all the same.
        late += bool(run.load["invalid"])
        has_passed = run.audit["verdict"] == "pass" and run.exit_code == (3 if run.load["invalid"] else 0)
        agreed += len(set(figures)) == 1 and has_passed
    said = f"{agreed} of 10: {sorted(set(seen))}; {late} with a late generator"
    yield "2 processes and a master: all counts agree", said, "10 of 10", agreed == 10


def lossy(_session: SharedParts, root: Path) -> Iterator[Figure]:
    """Run a worker that silently loses one task in a thousand."""
    run = locust(root, "--rate=200", "-t", f"{LOSSY // 200}s", "--drain-timeout=10s", "--app=noop_lossy")
    lost = run.audit["fates"]["lost"]
    said = f"{lost} lost of {LOSSY:,}, exit code {run.exit_code}"
    yield "a worker that loses 1 in 1,000", said, f"{LOSSY // 1000} lost", lost == LOSSY // 1000 and run.exit_code == 1


BENCHMARKS = {
    "load-publish": publish,
    "load-pace": pace,
    "load-results": results,
    "load-many": many,
    "load-knee": knee,
    "load-knee-of-machine": knee_of_machine,
    "load-fleet": fleet,
    "load-lossy": lossy,
}
