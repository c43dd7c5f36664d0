"""A run as a trace in Chrome's JSON format, which ui.perfetto.dev and chrome://tracing open.

Each node is a process, and each process of its pool a track; a pool that runs several tasks at once has as many tracks.
An arrow leads from the publishing of a task to each of its executions. The run itself has the backlog and the faults.
The format: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import TextIO

from harness.measure.load_account import FaultAccount
from harness.measure.spans import Place, Ran, Span, Spans
from harness.measure.stages import Stages
from harness.printable import printable_name
from harness.records.event import Event
from harness.records.values import Json

_RUN = 1
"""The number of the run among the processes of the trace. Zero would be that of an idle processor."""
_FIRST_TRACK = 100_000
"""The first number of a track, which must not be that of a process: that would be its main thread."""
_SAMPLE_S = 0.1
"""Seconds between two values of a counter. More values would make the file larger, and a plot no clearer."""
_FORGET_S = 60.0


class PerfettoTrace:
    """The writer of a trace. It writes while events come, so that its memory is that of `Spans` and `Stages`."""

    def __init__(
        self, file: TextIO, faults: Iterable[FaultAccount] = (), about: Mapping[str, str] | None = None
    ) -> None:
        """Begin a trace.

        Args:
            file: is written to.
            faults: of the run.
            about: more about the run.
        """
        self._file, self._faults = file, list(faults)
        self._about = {name: printable_name(value) for name, value in (about or {}).items()}
        self._stages = Stages(lambda _: None)
        self._nodes: dict[str, int] = {}
        self._tracks: dict[Place, int] = {}
        self._origin_t: float | None = None
        self._last_t = 0.0
        self._sampled_t = 0.0
        self._sample: tuple[int, int] | None = None
        self._is_first = True
        self.spans = self.flows = 0

    def begin(self) -> None:
        """Write the head."""
        self._file.write('{"displayTimeUnit":"ms","traceEvents":[\n')
        self._name(_RUN, "process_name", "the run")

    def event(self, event: Event, running: int) -> None:
        """Take an event for the counters, and the number of executions that are open after it."""
        if self._origin_t is None:
            self._origin_t = self._sampled_t = event.t
        self._last_t = max(self._last_t, event.t)
        self._stages.take(event)
        if event.t - self._sampled_t >= _SAMPLE_S or self._sample is None:
            self._sampled_t = event.t
            self._stages.forget_early(event.t - _FORGET_S)
            self._count(event.t, running)

    def span(self, span: Span) -> None:
        """Write a span that has ended; of an execution also the arrow from its publishing."""
        self.spans += 1
        track = self._track(span.place)
        args: dict[str, Json] = {"task": span.task, "root": span.root}
        if isinstance(span, Ran):
            args |= {"state": span.state, "retries": span.retries, "redelivered": span.redelivered}
            args |= {} if span.error is None else {"error": span.error}
            self._slice(span.name or span.task, (span.begin_t, span.end_t), (self._nodes[span.place.node], track), args)
            if span.sent is not None:
                self._flow(span, track)
            return
        args |= {"outcome": span.outcome, "retries": span.retries}
        args |= {} if span.parent is None else {"parent": span.parent}
        name = f"publish {span.name or span.task}"
        self._slice(name, (span.begin_t, span.end_t), (self._nodes[span.place.node], track), args)

    def end(self) -> None:
        """Write the faults, the last values, and the end."""
        self._count(self._last_t, 0, is_last=True)
        for number, fault in enumerate(one for one in self._faults if one.begin_t is not None):
            track = _FIRST_TRACK - 1 - number
            self._name(_RUN, "thread_name", f"fault {fault.fault}", track)
            begin_t, end_t = float(fault.begin_t or 0.0), self._last_t if fault.healed_t is None else fault.healed_t
            args = {"what": fault.text, "node": fault.node, "tasks": fault.overlapped}
            self._slice(fault.planned or fault.fault, (begin_t, max(end_t, begin_t)), (_RUN, track), args)
        origin = {"begun (Unix time)": repr(self._origin_t or 0.0), **self._about}
        self._file.write(f'\n],"otherData":{json.dumps(origin)}}}\n')

    def _count(self, t: float, running: int, *, is_last: bool = False) -> None:
        sample = (self._stages.backlog, running)
        if sample == self._sample and not is_last:
            return
        self._sample = sample
        for name, value in zip(("backlog", "running"), sample, strict=True):
            self._put({"ph": "C", "name": name, "pid": _RUN, "ts": self._us(t), "args": {"tasks": value}})

    def _flow(self, ran: Ran, track: int) -> None:
        sent = ran.sent
        if sent is None:
            return
        self.flows += 1
        about: dict[str, Json] = {"name": "published", "cat": "task", "id": self.flows}
        # It is bound to the slice around it, which begins at the same time.
        begin = {"ph": "s", "pid": self._node(sent.place.node), "tid": self._track(sent.place)}
        self._put({**about, **begin, "ts": self._us(sent.begin_t)})
        end = {"ph": "f", "bp": "e", "pid": self._nodes[ran.place.node], "tid": track}
        self._put({**about, **end, "ts": self._us(max(ran.begin_t, sent.begin_t))})

    def _node(self, node: str) -> int:
        if node not in self._nodes:
            self._nodes[node] = _RUN + 1 + len(self._nodes)
            self._name(self._nodes[node], "process_name", node)
        return self._nodes[node]

    def _track(self, place: Place) -> int:
        if place not in self._tracks:
            self._tracks[place] = track = _FIRST_TRACK + len(self._tracks)
            what = "process" if place.is_run else "publishing of process"
            more = f", {place.lane + 1}" if place.lane else ""
            self._name(self._node(place.node), "thread_name", f"{what} {place.pid}{more}", track)
        return self._tracks[place]

    def _name(self, process: int, kind: str, name: str, track: int = 0) -> None:
        about = {"ph": "M", "name": kind, "pid": process, "args": {"name": printable_name(name)}}
        self._put({**about, "tid": track} if track else about)

    def _slice(self, name: str, times: tuple[float, float], where: tuple[int, int], args: Mapping[str, Json]) -> None:
        (begin_t, end_t), (process, track) = times, where
        begin_us = self._us(begin_t)
        shown = {key: printable_name(value) if isinstance(value, str) else value for key, value in args.items()}
        dur_us = round(max(0.0, self._us(end_t) - begin_us), 3)
        about = {"ph": "X", "name": printable_name(name), "pid": process, "tid": track, "args": shown}
        self._put({**about, "ts": begin_us, "dur": dur_us})

    def _us(self, t: float) -> float:
        return round(max(0.0, t - (self._origin_t or t)) * 1e6, 3)

    def _put(self, event: Mapping[str, Json]) -> None:
        self._file.write(("" if self._is_first else ",\n") + json.dumps(event, separators=(",", ":")))
        self._is_first = False


def spans_of(events: Iterable[Event], trace: PerfettoTrace | None = None) -> Iterator[Span]:
    """Yield the spans of a run; a trace takes the events too, for its counters."""
    spans = Spans()
    for event in events:
        yield from spans.take(event)
        if trace is not None:
            trace.event(event, spans.running)
    yield from spans.end()
