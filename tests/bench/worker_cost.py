"""What the agent costs a worker: beside plain `celery`, and its breakpoints beside an agent that has none."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.audit.run_folder import RunFolder
from harness.containers.app_node import AppNode, inside_command
from harness.containers.worker import Worker
from harness.stack.shared_parts import SharedParts
from harness.stack.stack import Stack, StackSpec
from harness.wait import wait_until
from tests.bench.load import Figure

APPS = Path(__file__).parent / "apps"
TASKS = 4_000
AGENT = inside_command("agent")
PLAIN = ("celery",)
WITHOUT_BREAKPOINTS = ("python", "-m", "without_breakpoints")
ROUNDS = 5


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a worker needed for its tasks, without its start and its first tasks."""

    tasks_per_s: float
    processor_ms: float
    """Milliseconds of processor time for each task, of all processes in its container."""


def agent(session: SharedParts, root: Path) -> Iterator[Figure]:
    """Tasks a second through one worker, with the agent and as plain `celery`, in turns."""
    pairs = list(_in_turns(session, root, AGENT, PLAIN, rounds=3))
    ratio = statistics.median(ours.tasks_per_s / theirs.tasks_per_s for ours, theirs in pairs)
    ours, theirs = (statistics.median(cost.tasks_per_s for cost in column) for column in zip(*pairs, strict=True))
    yield "worker under the agent", f"{ours:.0f}/s beside {theirs:.0f}/s plain: {ratio:.3f}", ">= 0.95", ratio >= 0.95


def breakpoints(session: SharedParts, root: Path) -> Iterator[Figure]:
    """Processor time of a task while nobody holds any, beside an agent without breakpoints, in turns.

    Tasks a second differ from run to run by several times what is to be measured here.
    """
    pairs = list(_in_turns(session, root, AGENT, WITHOUT_BREAKPOINTS, rounds=ROUNDS))
    ratios = [theirs.processor_ms / ours.processor_ms for ours, theirs in pairs]
    ratio = statistics.median(ratios)
    ours, theirs = (statistics.median(cost.processor_ms for cost in column) for column in zip(*pairs, strict=True))
    said = f"{ours:.3f} ms a task beside {theirs:.3f} ms: {ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f})"
    yield "breakpoints that hold nothing", said, ">= 0.99", ratio >= 0.99


def _in_turns(
    session: SharedParts, root: Path, ours: Sequence[str], theirs: Sequence[str], *, rounds: int
) -> Iterator[tuple[Cost, Cost]]:
    for number in range(rounds):
        # What the machine does meanwhile must not meet always the same one.
        commands = (ours, theirs) if number % 2 else (theirs, ours)
        costs = {command: _cost(session, root, command) for command in map(tuple, commands)}
        yield costs[tuple(ours)], costs[tuple(theirs)]


def _cost(session: SharedParts, root: Path, command: Sequence[str]) -> Cost:
    """Fill a queue, start one worker, and measure it by the result table, which every variant has."""
    folder = RunFolder.create(root, "bench")
    with Stack(session, StackSpec(app="noop", app_folder=APPS, workers=0), folder) as stack:
        for _ in range(TASKS):
            stack.producer.send("noop")
        node = AppNode(
            image=session.worker_image,
            app="noop",
            app_folder=APPS,
            run_folder=stack.folder.path,
            network=session.network,
            broker_url=stack.login.amqp_url_inside,
        )
        worker = Worker(session.engine, node, name="worker-1")
        worker.spec = replace(worker.spec, command=(*command, *worker.spec.command[len(AGENT) :]))
        worker.start()
        try:
            used_ms = _processor_ms(session, worker)
            began, first, used_before_ms = _reach(stack, TASKS // 10, used_ms)
            ended, last, used_after_ms = _reach(stack, TASKS, used_ms)
        finally:
            worker.remove()
    done = last - first
    return Cost(tasks_per_s=done / (ended - began), processor_ms=(used_after_ms - used_before_ms) / done)


def _reach(stack: Stack, count: int, used_ms: Callable[[], float]) -> tuple[float, int, float]:
    """Wait until so many tasks have run; return the time, how many have, and the processor time up to then."""

    def reached() -> int | None:
        done = stack.results.count()
        return done if done >= count else None

    done = wait_until(reached, what=f"{count} tasks have run", timeout_s=120, interval_s=0.02)
    return time.perf_counter(), done, used_ms()


def _processor_ms(session: SharedParts, worker: Worker) -> Callable[[], float]:
    """Return a function that returns the processor time of a worker's container up to now."""
    container = session.engine.native(worker.container)

    def used_ms() -> float:
        # Not of this second, as `docker stats` has it: the sum since the start.
        said = container.client.api.stats(container.id, stream=False, one_shot=True)
        return float(said["cpu_stats"]["cpu_usage"]["total_usage"]) / 1_000_000

    return used_ms


BENCHMARKS = {"agent": agent, "breakpoints": breakpoints}
