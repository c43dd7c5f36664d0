"""The latest tasks of a stack that is up, as its journal tells of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from harness.records.event import OUTCOMES, Event, Finished, Intended, Kind, Started
from harness.report.live_page import LiveTask

_LATEST = 100
"""The number of tasks that are kept. A page of more is not read, and its rows change every second."""
_WORDS: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.ACCEPTED: "sent",
        Kind.REFUSED: "refused",
        Kind.UNKNOWN: "unknown",
        Kind.RECEIVED: "received",
        Kind.STARTED: "running",
        Kind.RETRIED: "to run again",
        Kind.REVOKED: "revoked",
        Kind.DISCARDED: "discarded",
    }
)


@dataclass
class _Seen:
    name: str
    sent_t: float
    t: float
    state: str = "sending"
    node: str = ""
    starts: int = 0


class LatestTasks:
    """Takes the events of a journal, and keeps what they say of the latest tasks."""

    def __init__(self) -> None:
        """Begin without a task."""
        self._seen: dict[str, _Seen] = {}

    def take(self, event: Event) -> None:
        """Take one event. Those of a task that is kept no more, or was never sent, are left out."""
        task = event.task
        if task is None:
            return
        if event.kind is Kind.INTENDED:
            self._intend(event, task)
        elif (seen := self._seen.get(task)) is not None:
            _change(seen, event)

    def _intend(self, event: Event, task: str) -> None:
        # A retry is sent under the same id.
        if task not in self._seen:
            self._seen[task] = _Seen(name=str(event.of(Intended).get("name", "")), sent_t=event.t, t=event.t)
            if len(self._seen) > _LATEST:
                del self._seen[next(iter(self._seen))]

    def tasks(self) -> tuple[LiveTask, ...]:
        """Return them, the newest first."""
        return tuple(
            LiveTask(
                task=task,
                name=one.name,
                state=one.state,
                node=one.node,
                starts=one.starts,
                sent_t=one.sent_t,
                t=one.t,
            )
            for task, one in reversed(self._seen.items())
        )


def _change(seen: _Seen, event: Event) -> None:
    if event.kind in OUTCOMES:
        # A worker can have it before its sender has read the confirm.
        if not seen.node:
            seen.state, seen.t = _WORDS[event.kind], max(seen.t, event.t)
        return
    if event.kind is Kind.FINISHED:
        state = str(event.of(Finished).get("state", ""))
    elif event.kind in _WORDS:
        state = _WORDS[event.kind]
    else:
        return
    if event.kind is Kind.STARTED:
        seen.starts += 1
        seen.name = seen.name or str(event.of(Started).get("name", ""))
    # The files of a journal are read one after another, so that an earlier line can come later.
    if event.t >= seen.t or not seen.node:
        seen.state, seen.node, seen.t = state, event.node, max(seen.t, event.t)
