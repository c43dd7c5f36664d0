"""A run as traces of OpenTelemetry: OTLP/JSON, one `TracesData` a line, as the collector's file receiver reads it.

Each task that no task has sent is a trace, with all that came of it. A publishing is a span of its own; the wait in the
queue and each execution are its children; what an execution sends is a child of the execution.
The format: https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/
"""

import hashlib
import json
from collections.abc import Mapping
from typing import TextIO
from uuid import UUID

from harness.measure.spans import DIED, OPEN, Published, Ran, RunKey, Span
from harness.printable import printable
from harness.records.values import Json

_MOST_SPANS = 500
"""The spans of one line. Collectors refuse messages of more than a few megabytes."""
_INTERNAL, _PRODUCER, _CONSUMER = 1, 4, 5
"""The kinds of spans."""
_OK, _ERROR = 1, 2
"""The states of spans."""


class OtlpTraces:
    """The writer of traces. It holds the spans of one line."""

    def __init__(self, file: TextIO, about: Mapping[str, str] | None = None) -> None:
        """Begin without spans. `about` is more about the run, for each resource."""
        self._file, self._about = file, dict(about or {})
        self._held: dict[str, list[Json]] = {}
        self._count = 0
        self.spans = 0

    def span(self, span: Span) -> None:
        """Take a span that has ended."""
        if isinstance(span, Published):
            self._publish(span)
        else:
            self._run(span)
        if self._count >= _MOST_SPANS:
            self.flush()

    def flush(self) -> None:
        """Write what is held as one line."""
        if not self._held:
            return
        resources = [
            {
                "resource": {"attributes": _attributes({"service.name": node, **self._about})},
                "scopeSpans": [{"scope": {"name": "celery-harness"}, "spans": spans}],
            }
            for node, spans in self._held.items()
        ]
        self._file.write(json.dumps({"resourceSpans": resources}, separators=(",", ":")) + "\n")
        self._held, self._count = {}, 0

    def _publish(self, span: Published) -> None:
        parent = None
        if span.parent_run is not None:
            parent = _run_id(span.parent_run)
        elif span.parent is not None and span.parent_sent is not None:
            parent = _publish_id(span.parent, span.parent_sent.number)
        is_error = span.outcome in {"refused", "unknown", OPEN}
        facts = {"outcome": span.outcome, "retries": span.retries}
        links = (_publish_id(span.task, span.number), parent)
        self._put(span, links, ("publish", _PRODUCER), facts, is_error=is_error)

    def _run(self, span: Ran) -> None:
        parent = None if span.sent is None else _publish_id(span.task, span.sent.number)
        if span.sent is not None:
            waited_t = min(max(span.sent.due_t, span.sent.begin_t), span.begin_t)
            queue = _id("queue", *map(str, span.key))
            self._put(span, (queue, parent), ("queue", _INTERNAL), {}, times=(waited_t, span.begin_t))
        facts: dict[str, Json] = {"state": span.state, "retries": span.retries, "redelivered": span.redelivered}
        is_error = span.state in {"FAILURE", DIED, OPEN}
        links = (_run_id(span.key), parent)
        self._put(span, links, ("run", _CONSUMER), facts, is_error=is_error, error=span.error)

    def _put(
        self,
        span: Span,
        links: tuple[str, str | None],
        kind: tuple[str, int],
        facts: Mapping[str, Json],
        *,
        times: tuple[float, float] | None = None,
        is_error: bool = False,
        error: str | None = None,
    ) -> None:
        begin_t, end_t = times or (span.begin_t, span.end_t)
        (own, parent), (what, number) = links, kind
        about = {f"celery.{name}": value for name, value in facts.items()}
        named = {"celery.task_id": span.task, "celery.task_name": span.name, "process.pid": span.place.pid}
        made: dict[str, Json] = {
            "traceId": _trace_id(span.root),
            "spanId": own,
            "name": printable(f"{what} {span.name or span.task}"),
            "kind": number,
            "startTimeUnixNano": _nanoseconds(begin_t),
            "endTimeUnixNano": _nanoseconds(max(begin_t, end_t)),
            "attributes": _attributes({"messaging.system": "rabbitmq", **named, **about}),
        }
        if parent is not None:
            made["parentSpanId"] = parent
        if is_error:
            made["status"] = {"code": _ERROR, "message": printable(error or str(facts.get("state", "")))}
        self._held.setdefault(span.place.node, []).append(made)
        self._count += 1
        self.spans += 1


def _trace_id(root: str) -> str:
    """Return the id of a trace: the task's own, if that is a UUID, so that it can be searched for."""
    try:
        made = UUID(root)
    except ValueError:
        made = UUID(int=0)
    return made.hex if made.int else _digest("trace", root)[:32]


def _publish_id(task: str, number: int) -> str:
    return _id("publish", task, str(number))


def _run_id(key: RunKey) -> str:
    return _id("run", *map(str, key))


def _id(*parts: str) -> str:
    return _digest(*parts)[:16]


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def _nanoseconds(t: float) -> str:
    """Return a Unix time; a float has no more than microseconds of it."""
    return str(round(t * 1e6) * 1000)


def _attributes(values: Mapping[str, Json]) -> list[Json]:
    return [{"key": name, "value": _value(value)} for name, value in values.items()]


def _value(value: Json) -> Json:
    if isinstance(value, bool):
        return {"boolValue": value}
    return {"intValue": str(value)} if isinstance(value, int) else {"stringValue": printable(str(value))}
