"""The benchmarks: each figure beside its target, ratios from one run. `python -m tests.bench.run [NAME ...]`."""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import kombu
from rich.console import Console
from rich.table import Table

from harness import Drive
from harness.audit.run_folder import RunFolder
from harness.producer import Producer
from harness.project.settings import load as settings_of
from harness.records import journal
from harness.records.event import Kind
from harness.records.journal import Writer
from harness.running.run import Plan, execute, stack_for
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec
from scenarios.bulk_data.scenario import scenario as bulk_data
from tests.bench import load, report, worker_cost
from tests.bench.load import Figure
from tests.bench.messages import publish as publish_message

HERE = Path(__file__).parent
APPS = HERE / "apps"
ROUNDS = 5
MESSAGES = 1_000
AUDITED = 1_000_000
console = Console(soft_wrap=True, highlight=False)


@contextmanager
def a_stack(session: SharedParts, root: Path, workers: int) -> Iterator[Stack]:
    folder = RunFolder.create(root, "bench")
    with Stack(session, StackSpec(app="noop", app_folder=APPS, workers=workers), folder) as stack:
        yield stack


def stack_start(session: SharedParts, root: Path) -> Iterator[Figure]:
    """From nothing to a vhost, a user, a result file and one worker that consumes; the broker is up."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        with a_stack(session, root, workers=1):
            seconds.append(time.perf_counter() - began)
    median = statistics.median(seconds)
    yield "isolated stack with one worker, start", f"{median:.2f} s ({_spread(seconds)})", "< 2 s", median < 2


def publish(session: SharedParts, root: Path) -> Iterator[Figure]:
    """producer.send beside a loop that only publishes the same message with confirms, in turns."""
    with a_stack(session, root, workers=0) as stack:
        url = stack.login.amqp_url_outside
        with kombu.Connection(url, transport_options={"confirm_publish": True}) as connection:
            bare = _bare_loop(connection)
            with Producer(url, Writer(stack.folder.journal, node="bench", role="producer")) as producer:

                def send(count: int) -> None:
                    for number in range(count):
                        if not producer.send("noop", kwargs={"number": number}).accepted:
                            raise RuntimeError("the broker did not accept a task")

                for warm_up in (bare, send):
                    warm_up(100)
                pairs = [(_rate(send, MESSAGES), _rate(bare, MESSAGES)) for _ in range(ROUNDS)]
    ratio = statistics.median(ours / theirs for ours, theirs in pairs)
    ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    yield "producer.send", f"{ours:.0f}/s beside {theirs:.0f}/s bare: {ratio:.2f}", ">= 0.85", ratio >= 0.85


def _bare_loop(connection: kombu.Connection) -> Callable[[int], None]:
    """Return a loop that only publishes what Celery publishes for a task, to a queue of the same kind."""
    channel = connection.default_channel
    channel.queue_declare("bare", durable=True, auto_delete=False)
    producer = kombu.Producer(channel)

    def loop(count: int) -> None:
        for number in range(count):
            publish_message(producer, "bare", number=number)

    return loop


def audit(_session: SharedParts, root: Path) -> Iterator[Figure]:
    """One audit of a million tasks, in a process of its own, as `harness audit` would do it."""
    console.print(f"writing the evidence of {AUDITED:,} tasks ...")
    script = [sys.executable, str(HERE / "synthetic.py"), str(root), str(AUDITED)]
    made = subprocess.run(script, check=True, capture_output=True, text=True)
    folder = made.stdout.strip()
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "harness", "audit", folder], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    verdict = json.loads((Path(folder) / "audit.json").read_text())["verdict"]
    if process.returncode or verdict != "pass":
        raise RuntimeError(f"the audit ended with {process.returncode}, {verdict}")
    peak_mb = usage.ru_maxrss / 1024
    yield f"audit of {AUDITED:,} tasks, time", f"{seconds:.1f} s", "< 15 s", seconds < 15
    yield f"audit of {AUDITED:,} tasks, peak memory", f"{peak_mb:.0f} MB", "< 500 MB", peak_mb < 500
    shutil.rmtree(folder)


def bulk(session: SharedParts, root: Path) -> Iterator[Figure]:
    """Rows a second of a whole import, and what the worker needs for it: of a file, and of one ten times as long."""
    small, large = (_imported(session, root, rows) for rows in (100_000, 1_000_000))
    speed, memory = (large[what] / small[what] for what in range(2))
    yield (
        "bulk import, rows a second",
        f"{large[0]:,.0f}/s of 1,000,000: {speed:.2f} of 100,000's",
        ">= 0.8",
        speed >= 0.8,
    )
    said = f"{large[1]:.0f} MB for 1,000,000 rows: {memory:.2f} of 100,000's"
    yield "bulk import, peak memory of the worker", said, "<= 1.2", memory <= 1.2


def _imported(session: SharedParts, root: Path, rows: int) -> tuple[float, float]:
    """Rows a second, from the order to the totals, and the worker's peak memory in MB."""
    console.print(f"importing {rows:,} rows ...")
    drive = Drive(count=1, seed=1, options={"rows": rows})
    stack = stack_for(bulk_data, settings_of(HERE.parents[1]))
    folder, audited = execute(session, Plan(scenario=bulk_data, drive=drive, stack=stack, root=root))
    if not audited.passed:
        raise RuntimeError(audited.text())
    times = [event.t for event in journal.read(folder.journal) if event.kind in {Kind.INTENDED, Kind.FINISHED}]
    shutil.rmtree(folder.path)
    return rows / (max(times) - min(times)), audited.memory_mb["worker-1"]


def _rate(loop: Callable[[int], None], count: int) -> float:
    began = time.perf_counter()
    loop(count)
    return count / (time.perf_counter() - began)


def _spread(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"


BENCHMARKS = {
    "stack": stack_start,
    "publish": publish,
    **worker_cost.BENCHMARKS,
    "audit": audit,
    "report": report.report,
    "bulk": bulk,
    **load.BENCHMARKS,
}


def main(names: Sequence[str]) -> None:
    """Run the benchmarks called `names`, or all."""
    unknown = set(names) - BENCHMARKS.keys()
    if unknown:
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are: {', '.join(BENCHMARKS)}.")
    table = Table(title=f"{os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f} at the start")
    for column in ("figure", "measured", "target", "met"):
        table.add_column(column)
    with tempfile.TemporaryDirectory(prefix="celery-harness-bench-") as scratch, SharedParts(console.print) as session:
        # The broker's own start belongs to no figure.
        session.start()
        for name in names or BENCHMARKS:
            for what, measured, target, met in BENCHMARKS[name](session, Path(scratch)):
                console.print(f"{what}: {measured}")
                table.add_row(what, measured, target, "yes" if met else "no")
    console.print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
