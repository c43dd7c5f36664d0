"""Live tables of the tasks, in three tabs of Locust's own page.

Locust's page can show additional tables. It takes `extended_tabs` and `extended_tables` among its template arguments,
and `extended_stats` in each answer of /stats/requests, which it requests every two seconds (locust/web.py and the
page's own source, version 2.47). So these tables look like Locust's, and sorting and the dark mode work. The browser
shows their contents as text, never as markup.

The page sends requests only while it considers the run to be on. For Locust, a run has not begun while the stack comes
up, and is over when nothing more is sent. So the answer says that the run is on until the last task is accounted for.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flask import Response, jsonify, request

from harness.loadtest.messages import Closed
from harness.measure.load_account import NOTHING_YET, Quantiles, Sample
from harness.measure.stages import Stage
from harness.printable import printable_name
from harness.records.values import Json

if TYPE_CHECKING:
    from locust.env import Environment

Row = dict[str, Json]

_TASKS, _STAGES, _WORKERS = "celery-tasks", "celery-stages", "celery-workers"
_TABS = {_TASKS: "Tasks", _STAGES: "Task stages", _WORKERS: "Celery workers"}
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_MS = {**{name: f"{name} (ms)" for name in _QUANTILES}, "max": "max (ms)"}
# A row without a member `name` keeps its place until the user sorts the table.
_COLUMNS = {
    _TASKS: {"figure": "Figure", "value": "Value", "meaning": "What it means"},
    _STAGES: {"over": "Measured over", "stage": "Stage", "count": "Tasks", **_MS, "meaning": "What it means"},
    _WORKERS: {"worker": "Worker", "state": "State", "begun": "Tasks begun", "share": "Share (%)"},
}
_NOTHING = "–"  # noqa: RUF001 - a dash for readers, as in print.
_SECOND, _RUN = "the last second", "the whole run"
_MEANING = {
    Stage.PUBLISH: "from when it was due until the broker confirmed it",
    Stage.QUEUE: "from when it was due until a worker began it",
    Stage.RUN: "in the worker, without storing",
    Stage.STORE: "inside the result backend",
    Stage.E2E: "from when it was due until its result was stored",
}
_PHASE = {
    "opening": ("coming up", "A stack comes up, with its broker and its workers; nothing is sent yet."),
    "on": ("running", "Tasks are sent, and each of them is followed."),
    "closing": ("draining", "Nothing more is sent. Every task is waited for, and then accounted for."),
}
_ATTACHING = ("attaching", "The broker and the workers run elsewhere, and are attached to; nothing is sent yet.")
_VERDICT = {
    0: ("passed", "Every task is accounted for, as it was promised."),
    1: ("failed", "The audit failed, an objective was missed, or a task is not accounted for."),
    3: ("unknown", "The run says nothing: the generator was not up to it, or a witness is missing."),
}
_BROKE_OFF = ("broke off", "There is no account of it; the terminal says why.")
_NOT_BEGUN = ("not begun", "Nothing was sent yet.")
_IS_ON = ("spawning", "running")
"""The states of a runner in which Locust's page continues its requests."""


class Source(Protocol):
    """The source of the tables' data."""

    @property
    def live(self) -> Sample:
        """The sample of the last second of this run; NOTHING_YET before the first."""

    @property
    def closed(self) -> Closed | None:
        """The stack process's answer at the end of the last run that has one; None if no run has."""

    @property
    def phase(self) -> str:
        """The phase of the run: `opening`, `on`, `closing`, and otherwise `rest`."""


def add(environment: "Environment", source: Source, *, is_attached: bool = False) -> None:
    """Add the tabs to the page of an environment that has one. Call this before the page's server starts.

    Args:
        environment: Locust's.
        source: the source of the tables' data.
        is_attached: True if the runs have no stack of their own, because broker and workers run elsewhere.
    """
    page = environment.web_ui
    page.template_args.setdefault("extended_tabs", []).extend({"key": key, "title": _TABS[key]} for key in _TABS)
    page.template_args.setdefault("extended_tables", []).extend(
        {"key": key, "structure": [{"key": name, "title": title} for name, title in columns.items()]}
        for key, columns in _COLUMNS.items()
    )
    tables = Tables(source, environment, is_attached=is_attached)
    environment.events.test_start.add_listener(tables.begin)

    def extend(response: Response) -> Response:
        # The endpoint's name does not depend on --web-base-path.
        if request.endpoint != "locust.request_stats" or not response.is_json or response.status_code != 200:  # noqa: PLR2004 - HTTP's OK.
            return response
        # Locust caches its answer for two seconds, so the cached one must not be changed.
        answer = jsonify(tables.extended(response.get_json()))
        answer.headers["Cache-Control"] = "no-store"
        return answer

    page.app.after_request(extend)


class Tables:
    """The rows of the tables, created for each request of the page."""

    def __init__(self, source: Source, environment: "Environment", *, is_attached: bool = False) -> None:
        """Create tables with the data of `source`, and with Locust's statistics in `environment` for the whole run."""
        self._source = source
        self._environment = environment
        self._is_attached = is_attached
        self._before: Closed | None = None
        self._has_begun = False

    def begin(self, **_: object) -> None:
        """Note that a run begins: the present account belongs to an earlier run."""
        self._before, self._has_begun = self._source.closed, True

    def extended(self, answer: Mapping[str, Json]) -> dict[str, Json]:
        """Return an answer of Locust's /stats/requests with the tables added, and with the state for the page."""
        live, is_over = self._source.live, self._source.phase == "rest"
        whole = of_the_run(self._environment.stats.entries)
        tables = {
            _TASKS: [_row("State", *self._state()), *figures(live, whole, is_over=is_over)],
            _STAGES: [*stages(live, whole, is_over=is_over)],
            _WORKERS: [*workers(live, is_over=is_over)],
        }
        more = [
            *answer.get("extended_stats", []),
            *({"key": key, "data": [_shown(row) for row in rows]} for key, rows in tables.items()),
        ]
        return {**answer, "state": self._state_of(answer["state"]), "extended_stats": more}

    def _state_of(self, runner: str) -> str:
        """Return the state for the page. `runner` is that of Locust's runner, which may be two seconds old."""
        if self._source.phase == "rest":
            # The page has no tabs before a run, but a run whose stack did not come up has a result to show, too.
            return "stopped" if self._has_begun and runner == "ready" else runner
        if runner in _IS_ON:
            return runner
        return "spawning" if self._source.phase == "opening" else "running"

    def _state(self) -> tuple[str, str]:
        phase = self._source.phase
        if phase in _PHASE:
            return _ATTACHING if phase == "opening" and self._is_attached else _PHASE[phase]
        closed = self._source.closed
        if not self._has_begun:
            return _NOT_BEGUN
        if closed is None or closed is self._before:
            return _BROKE_OFF
        value, meaning = _VERDICT.get(closed.exit_code, _BROKE_OFF)
        folder, here = closed.folder, Path.cwd()
        return value, f"{meaning} Run folder: {folder.relative_to(here) if folder.is_relative_to(here) else folder}"


def figures(live: Sample, whole: Mapping[Stage, Quantiles], *, is_over: bool) -> Iterator[Row]:
    """Yield the rows of the overview: rates, backlog, time end to end, workers, and the tasks' outcomes.

    Args:
        live: the sample of the last second.
        whole: the result of `of_the_run`.
        is_over: True if the run is over; the rates are then zero, and the times are those of the whole run.
    """
    rates = NOTHING_YET if is_over else live
    yield _row("In", f"{rates.in_per_s:,.1f}/s", "Tasks that the broker took in the last second.")
    yield _row("Out", f"{rates.out_per_s:,.1f}/s", "Tasks that ended in the last second.")
    yield _row("Backlog", f"{live.backlog:,}", "Taken by the broker and not ended.")
    last = _last(live, Stage.E2E, is_over=is_over)
    over, found = (_SECOND, last) if last else (_RUN, whole.get(Stage.E2E))
    durations = _durations(found)
    value = " · ".join(f"{name} {durations[name]:g}" for name in _MS) + " ms" if found else _NOTHING
    yield _row("End to end", value, f"Over {over}: {_MEANING[Stage.E2E]}.")
    yield _workers_row(live, is_over=is_over)
    yield _row("Sent", f"{live.sent:,}", "Each of them is one of these five:")
    yield _row("Ended as expected", f"{live.ended - live.failed:,}", "And the result was stored.")
    yield _row("Failed", f"{live.failed:,}", "Ended otherwise than expected.")
    yield _row("Refused", f"{live.refused:,}", "The broker did not take it, and said so.")
    yield _row("Unknown", f"{live.unknown:,}", "Nobody knows whether the broker took it; the account will tell.")
    in_flight = live.sent - live.ended - live.refused - live.unknown
    yield _row("In flight", f"{in_flight:,}", "The backlog, and what is just being sent.")


def _workers_row(live: Sample, *, is_over: bool) -> Row:
    if live.up is None:
        return _row("Workers", _NOTHING, "They run elsewhere, and somebody else looks after them.")
    up = live.up
    down = [name for name, is_up in up.items() if not is_up]
    meaning = f"Down: {', '.join(down)}." if down else "All that were started are up." if up else "None was seen yet."
    value = f"{len(up) - len(down)} of {len(up)} up"
    return _row("Workers", value, "At the end of the run." if up and is_over and not down else meaning)


def stages(live: Sample, whole: Mapping[Stage, Quantiles], *, is_over: bool) -> Iterator[Row]:
    """Yield the rows with the durations of each stage, in the last second and in the whole run."""
    for stage in Stage:
        last = _durations(_last(live, stage, is_over=is_over))
        yield {"over": _SECOND, "stage": stage.value, **last, "meaning": _MEANING[stage]}
    for stage in Stage:
        yield {"over": _RUN, "stage": stage.value, **_durations(whole.get(stage)), "meaning": _MEANING[stage]}


def workers(live: Sample, *, is_over: bool) -> Iterator[Row]:
    """Yield one row for each worker: its state, and the number of tasks that it has begun."""
    up, begun = live.up or {}, live.begun_on
    total = sum(begun.values())
    when = " at the end" if is_over else ""
    for name in [*up, *sorted(begun.keys() - up.keys())]:
        state = f"{'up' if up[name] else 'down'}{when}" if name in up else "elsewhere"
        share = round(100 * begun.get(name, 0) / total, 1) if total else 0.0
        yield {"worker": name, "state": state, "begun": begun.get(name, 0), "share": share}


class Entry(Protocol):
    """The part of Locust's `StatsEntry` that is used here."""

    @property
    def response_times(self) -> Mapping[float, int]:
        """The number of occurrences of each time, in milliseconds that Locust has rounded."""

    @property
    def max_response_time(self) -> float:
        """The longest time, in milliseconds."""


def of_the_run(entries: Mapping[tuple[str, str], Entry]) -> dict[Stage, Quantiles]:
    """Return the quantiles since the run began, in milliseconds, for each stage that a task has passed.

    Args:
        entries: Locust's statistics per name and type of request; the types are the stages. Locust keeps them for its
            own tables, including those of its workers, to the millisecond.
    """
    found: dict[Stage, Quantiles] = {}
    for stage in Stage:
        passed = [entry for (_, kind), entry in entries.items() if kind == stage.value.upper() and entry.response_times]
        times: Counter[float] = Counter()
        for entry in passed:
            times.update(entry.response_times)
        if times:
            quantiles = {name: _quantile(times, share) for name, share in _QUANTILES.items()}
            longest = _digits(max(entry.max_response_time for entry in passed))
            found[stage] = Quantiles(count=times.total(), **quantiles, max=longest)
    return found


def _quantile(times: Counter[float], share: float) -> float:
    """Return the shortest time that at least this share of all times does not exceed."""
    left = share * times.total()
    for time in sorted(times):
        left -= times[time]
        if left <= 0:
            return time
    return max(times)


def _last(live: Sample, stage: Stage, *, is_over: bool) -> Quantiles | None:
    """Return the quantiles of a stage in the last second, rounded for display; None if no task passed it."""
    found = None if is_over else live.stages.get(stage)
    if found is None:
        return None
    return Quantiles(count=found.count, **{name: _digits(getattr(found, name)) for name in _MS})


def _digits(duration_ms: float) -> float:
    """Round a duration to the digits that are useful for display: 1.23, 12.3, 123."""
    places = next((places for places, limit in ((2, 10), (1, 100)) if abs(duration_ms) < limit), None)
    return round(duration_ms, places)


def _durations(found: Quantiles | None) -> Row:
    return {name: _NOTHING if found is None else getattr(found, name) for name in ("count", *_MS)}


def _shown(row: Row) -> Row:
    """Return a row with printable texts. The page itself shows them as text, not as markup."""
    return {name: printable_name(value) if isinstance(value, str) else value for name, value in row.items()}


def _row(figure: str, value: str, meaning: str) -> Row:
    return {"figure": figure, "value": value, "meaning": meaning}
