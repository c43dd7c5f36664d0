"""More settings that can be to blame: those whose value is compared with what was measured in the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.audit.blamed_settings import Blame, Case, app_line, queue_line
from harness.audit.live_settings import LiveSettings
from harness.audit.remains import QueueLeft

_ROUNDED_KB = 10_000
"""A proposed limit of memory is a multiple of this, so that processes that grew alike have one remedy."""
_TRANSIENT = (1, "1", "transient")
"""The values that Celery takes for a delivery mode in which the broker need not keep a message on disk."""


@dataclass(frozen=True)
class OfConsumerTimeout:
    """The time within which the broker wants an acknowledgement: an argument of the queue, or the broker's setting."""

    setting: str = "x-consumer-timeout"
    remedies: Sequence[str] = ('Queue("...", queue_arguments={"x-consumer-timeout": ...})', "consumer_timeout = ...")

    def find(self, case: Case, live: LiveSettings, queues: Mapping[str, QueueLeft]) -> Blame | None:  # noqa: ARG002
        """Return it with the time-out that the broker named; the remedy doubles it."""
        used_ms = case.overdue_ms
        if used_ms is None:
            return None
        queue = queues.get(case.queue)
        if queue is None or self.setting not in queue.arguments:
            return Blame("consumer_timeout", used_ms, "broker", f"consumer_timeout = {2 * used_ms}")
        arguments = {**queue.arguments, self.setting: 2 * used_ms}
        return Blame(self.setting, used_ms, f"queue {queue.name}", queue_line(queue.name, arguments))


@dataclass(frozen=True)
class OfDeliveryMode:
    """The setting that puts messages on the broker's disk. A quorum queue keeps each, whatever its mode."""

    setting: str = "task_default_delivery_mode"
    remedies: Sequence[str] = ("app.conf.task_default_delivery_mode = 2",)

    def find(self, case: Case, live: LiveSettings, queues: Mapping[str, QueueLeft]) -> Blame | None:
        """Return it if the task's messages are transient, in a classic queue that survives a restart itself."""
        queue = queues.get(case.queue)
        found = live.setting(self.setting)
        if queue is None or queue.kind != "classic" or queue.durable is False or found is None:
            return None
        if found.value not in _TRANSIENT:
            return None
        return Blame(self.setting, found.value, found.where, self.remedies[0])


@dataclass(frozen=True)
class OfMemory:
    """The memory above which a process is replaced between two tasks."""

    setting: str = "worker_max_memory_per_child"
    remedies: Sequence[str] = ("app.conf.worker_max_memory_per_child = ...",)

    def find(self, case: Case, live: LiveSettings, queues: Mapping[str, QueueLeft]) -> Blame | None:  # noqa: ARG002
        """Return it if it is not set, or above what the process had before its last task; the remedy is below that."""
        found = live.option(self.setting, None, case.workers or (), default=self.setting)
        limit_kb = (case.grown_kb or 0) // _ROUNDED_KB * _ROUNDED_KB
        if found is None or not limit_kb:
            return None
        if isinstance(found.value, int | float) and 0 < found.value <= limit_kb:
            return None
        return Blame(self.setting, found.value, found.where, app_line({self.setting: limit_kb}))


@dataclass(frozen=True)
class OfPrefetch:
    """The number of messages that a worker takes ahead for each process."""

    setting: str = "worker_prefetch_multiplier"
    remedies: Sequence[str] = (
        "app.conf.worker_prefetch_multiplier = 1",
        "app.conf.update(worker_prefetch_multiplier=1, task_acks_late=True)",
    )

    def find(self, case: Case, live: LiveSettings, queues: Mapping[str, QueueLeft]) -> Blame | None:  # noqa: ARG002
        """Return it if it is not 1. With early acknowledgement, a worker takes one message ahead all the same."""
        found = live.setting("prefetch_multiplier")
        late = live.option("acks_late", case.name)
        if found is None or late is None or found.value == 1:
            return None
        change = {self.setting: 1} if late.value else {self.setting: 1, "task_acks_late": True}
        return Blame(self.setting, found.value, found.where, app_line(change))
