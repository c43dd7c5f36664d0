"""A stack of which only its journal and the broker's answers exist, for what settles or looks at what is left."""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from harness.audit.ledger import Ledger
from harness.audit.remains import Settled
from harness.containers.broker_node import QueueCount, QueueLook, Waiting
from harness.errors import BrokerError, EngineError
from harness.stack.limits import Limits
from harness.stack.settling import settle
from harness.wait import Clock

START_T = 1_000.0


@dataclass
class World:
    """A stack of which only its journal and what the broker says is there; its time passes when somebody sleeps."""

    folder: Path
    queues: list[QueueCount] = field(default_factory=list)
    looks: dict[str, QueueLook] = field(default_factory=dict)
    messages: dict[str, list[Waiting]] = field(default_factory=dict)
    workers: set[str] = field(default_factory=lambda: {"worker-1"})
    later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    """What happens when, in seconds from the start."""
    now_s: float = 0.0
    fault: str | None = None
    engine_fault: str | None = None
    said: list[str] = field(default_factory=list)
    looked: int = 0

    def __post_init__(self) -> None:
        self._ledger = Ledger(self.folder)
        self._numbers: defaultdict[Path, count[int]] = defaultdict(count)

    @property
    def ledger(self) -> Ledger:
        self._ledger.update()
        return self._ledger

    def task_queues(self) -> list[QueueCount]:
        if self.fault:
            raise BrokerError(self.fault)
        return self.queues

    def look(self, queues: Collection[str]) -> Mapping[str, QueueLook]:
        self.looked += 1
        return {name: look for name, look in self.looks.items() if name in queues}

    def peek(self, queue: str) -> Sequence[Waiting]:
        return self.messages.get(queue, [])

    def alive(self) -> set[str]:
        if self.engine_fault:
            raise EngineError(self.engine_fault)
        return self.workers

    def sleep(self, seconds: float) -> None:
        self.now_s += max(seconds, 0.001)
        for due in [one for one in self.later if one[0] <= self.now_s]:
            self.later.remove(due)
            due[1]()

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.now_s, sleep=self.sleep)

    def say(self, node: str, kind: str, task: str | None = None, *, pid: int = 1, **data: Any) -> None:
        path = self.folder / f"{node}.{pid}.1.jsonl"
        number = next(self._numbers[path])
        line = {"n": number, "t": START_T + self.now_s, "kind": kind, **({"task": task} if task else {}), **data}
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def send(self, *tasks: str, **data: Any) -> None:
        for task in tasks:
            self.say("producer", "intended", task, name="nap", **data)
            self.say("producer", "accepted", task)

    def end(self, task: str, state: str = "SUCCESS", **data: Any) -> None:
        self.say("worker-1", "finished", task, state=state, **data)

    def at(self, seconds: float, kind: str, task: str, **data: Any) -> None:
        """Have the worker say something later."""
        self.later.append((seconds, lambda: self.say("worker-1", kind, task, **data)))

    def holds(self, name: str = "celery", *, consumers: int | None = 0, **counts: Any) -> None:
        """Let a queue hold something from now on."""
        self.queues = [queue for queue in self.queues if queue.name != name]
        self.queues.append(QueueCount(name=name, **{"ready": 0, "unacked": 0, **counts}))
        if consumers is not None:
            self.looks[name] = QueueLook(ready=counts.get("ready", 0), consumers=consumers)

    def settle(self, timeout_s: float = 60.0, limit_s: float = 600.0, step_s: float | None = None) -> Settled:
        """Settle; with a step, each sleep takes as long, whose sums binary fractions hold exactly."""
        stepping = Clock(now=lambda: self.now_s, sleep=lambda _: self.sleep(step_s or 0.0))
        return settle(
            self,
            Limits(timeout_s=timeout_s, limit_s=limit_s),
            say=self.said.append,
            clock=self.clock if step_s is None else stepping,
            now_t=lambda: START_T + self.now_s,
        )
