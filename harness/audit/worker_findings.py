"""The findings about workers as such: whether they consume, hoard, grow, and have the settings of the app in force."""

from collections.abc import Iterator, Mapping, Sequence

from harness.audit.remains import Remains
from harness.records.expectation import Promise
from harness.records.finding_codes import Code
from harness.records.verdict import Finding, Verdict

HOARDED_S = 1.0
"""The least seconds of idle processes that are told. Fewer would be told of most runs: each message waits for a moment
in the worker that got it."""

_TASKS_OF_GROWTH = 1_000
"""The least number of tasks over which the growth of a worker's memory is told. Python takes memory in steps of a MiB,
which would look like a growth over fewer."""


def of_remains(remains: Remains) -> Iterator[Finding]:
    """Yield the settings that are not in force, and the workers that consume nothing any more."""
    if differing := remains.differing:
        text = f"settings of the app that are not in force: {'; '.join(differing)}"
        yield Finding(code=Code.SETTINGS_DIFFER, verdict=Verdict.PASS, count=len(differing), text=text)
    if deaf := remains.deaf:
        text = f"workers that run take no more tasks: {'; '.join(one.text for one in deaf)}"
        count = len({node for one in deaf for node in one.absent or one.workers[:1]})
        yield Finding(code=Code.DEAF, verdict=Verdict.FAIL, count=count, text=text)


def of_hoarding(hoarded: Sequence[tuple[str, float, float]]) -> Iterator[Finding]:
    """Yield the remark that workers had nothing to do while others held messages, if that was long enough to matter."""
    idle = [(node, idle_s) for node, idle_s, _ in hoarded if idle_s >= HOARDED_S]
    if idle:
        who = ", ".join(f"{node} for {idle_s:.1f} s" for node, idle_s in idle)
        holder, *_ = max(hoarded, key=lambda one: one[2])
        text = (
            f"processes had nothing to do, while another worker held messages that it had not begun: {who}. Most were "
            f"held by {holder}: worker_prefetch_multiplier = 1 with task_acks_late leaves them in the queue."
        )
        yield Finding(code=Code.HOARDED, verdict=Verdict.PASS, count=len(idle), text=text)


def of_growth(growth_mb: Mapping[str, tuple[float, int]], promise: Promise) -> Iterator[Finding]:
    """Yield whether the processes of a worker grew by more than promised.

    Args:
        growth_mb: per worker, by how many MiB a process grew in 1,000 tasks, and over how many tasks that was measured.
        promise: what is demanded.
    """
    if promise.memory_growth_mb is None:
        return
    most_mb = promise.memory_growth_mb
    measured = {node: mb for node, (mb, tasks) in growth_mb.items() if tasks >= _TASKS_OF_GROWTH}
    demanded = f"no more than {most_mb:g} MiB in 1,000 tasks is promised"
    if not measured:
        seen = ", ".join(f"{node} {tasks}" for node, (_, tasks) in growth_mb.items()) or "none"
        text = f"{demanded}, and no worker ran {_TASKS_OF_GROWTH} tasks in processes that were looked at: {seen}."
        yield Finding(code=Code.MEMORY_GROWTH_UNKNOWN, verdict=Verdict.UNKNOWN, count=1, text=text)
    elif grown := {node: mb for node, mb in measured.items() if mb > most_mb}:
        said = ", ".join(f"{node} {mb:.1f} MiB" for node, mb in grown.items())
        text = f"the processes of workers grew, and {demanded}: {said}. worker_max_tasks_per_child replaces a process."
        yield Finding(code=Code.MEMORY_GROWS, verdict=Verdict.FAIL, count=len(grown), text=text)
