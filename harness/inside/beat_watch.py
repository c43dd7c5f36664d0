"""The journal of beat: its schedule, the entry that it sends, when it wakes and when it intends to wake again.

Beat is its own process, or runs in a process or a thread of a worker that was started with `--beat`.
"""

import os
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from celery import Celery
from celery.app import defaults
from celery.beat import ScheduleEntry, Scheduler, Service
from celery.schedules import crontab
from celery.schedules import schedule as interval

from harness.records.event import Kind
from harness.records.journal import Writer
from harness.records.moment import Moment, Reach, go_on
from harness.records.values import Json

_CRON_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
_ZONE_ONLY = frozenset({"tz", "now", "nowfun", "nowfunc"})
"""Attributes that a schedule class may override without changing when a tick is due: its zone and clock."""
_DJANGO_CRONTAB = ("django_celery_beat.tzcrontab", "TzAwareCrontab")
"""Differs from Celery's class only in its zone, though it defines `is_due`."""
_DJANGO_ENTRY = ("django_celery_beat.schedulers", "ModelEntry")
_DJANGO_LIMITS = ("start_time", "expires", "one_off")
"""Fields that restrict such an entry beyond its schedule."""
_CLOCK_SLACK_S = 1.0
_LONGEST_TIMEOUT_S = 2_000_000.0
"""The longest timeout that a socket takes: it counts milliseconds in 32 bits."""
_REASON_LENGTH = 500


class BeatWatch:
    """Journals what beat does in this process, for any scheduler class."""

    def __init__(self, journal: Writer, *, speed: float = 1.0, reach: Reach = go_on) -> None:
        """Create the watch without watching anything; see `prepare` and `begin`.

        Args:
            journal: where to write.
            speed: the speed of this process's clock as a multiple of real time.
            reach: is called before and after the schedule is saved.
        """
        self._journal = journal
        self._reach = reach
        self._sent = ("", "")
        """The id and the name of the task that beat has sent last; empty before the first."""
        self._speed = speed
        self._pid = os.getpid()
        """The worker's process id, also in the process of its embedded beat."""
        self._sending = threading.local()
        """Holds the entry that this thread is sending: a worker's tasks may send at the same time."""
        self._schedules: dict[str, Any] = {}
        """The schedule of each entry in the journal. The reference keeps another object from reusing its identity."""
        self._rules: dict[str, dict[str, Json]] = {}
        """The journal's description of each entry."""
        self._deadline_s: float | None = None
        self._planned: tuple[float, float] | None = None
        """The start and the end of the last planning of all entries; None if there was none since the last wake."""
        self._woke: float | None = None
        """The time when the scheduler last woke; None before the first wake."""
        self._unnamed: set[tuple[int, str]] = set()
        self._shadowed: list[tuple[int, str, dict[str, Json]]] = []

    def prepare(self, schedule_file: Path | None = None) -> None:
        """Watch what happens before beat begins. Must be called before the app is imported.

        Args:
            schedule_file: where beat keeps its schedule, unless the app or an option sets the path. Celery's own
                default is the working directory, which is read-only in a container of the harness.
        """
        if schedule_file is not None:
            defaults.DEFAULTS["beat_schedule_filename"] = str(schedule_file)
        self._watch_starts(schedule_file)
        self._watch_shadows()

    def begin(self, service: Any, *, confirm_publish: bool, says_ready: bool) -> None:
        """Journal the settings of beat, and watch it from now on.

        Args:
            service: the sender of Celery's signal `beat_init`.
            confirm_publish: whether its broker confirms what it takes.
            says_ready: whether to journal READY; false with `worker --beat`, where the worker reports it.
        """
        app, scheduler = service.app, service.scheduler
        if self._speed != 1.0:
            _stretch(app.conf, self._speed)
        self._deadline_s = app.conf.get("beat_cron_starting_deadline")
        self._learn(scheduler.schedule)
        self._journal.write(
            Kind.SETTINGS,
            confirm_publish=confirm_publish,
            timezone=str(app.timezone),
            scheduler=".".join(_named(type(scheduler))),
            at=time.time(),
            schedule=list(self._rules.values()),
            shadowed=self._shadows(app),
        )
        self._watch(scheduler)
        if says_ready:
            self._journal.write(Kind.READY, at=time.time())

    def sending(self) -> dict[str, Json]:
        """Return the members that `intended` gets while beat sends an entry; empty otherwise."""
        entry, following = getattr(self._sending, "entry", None), getattr(self._sending, "following", None)
        if entry is None:
            return {}
        said: dict[str, Json] = {"entry": entry, "at": time.time()}
        return said if following is None else said | {"following": following}

    def note_sent(self, task: str, name: str) -> None:
        """Remember a task that this thread has published, if beat sends an entry in it."""
        if getattr(self._sending, "entry", None) is not None:
            self._sent = (task, name)

    # ------------------------------------------------------------------------------------------ its begin and end

    def _watch_starts(self, schedule_file: Path | None) -> None:
        """Detect the start of a worker's beat, and any beat's end by an error: Celery has no signal for them."""
        start = Service.start

        def watched_start(service: Any, embedded_process: bool = False, **options: Any) -> Any:  # noqa: FBT001, FBT002 - as Celery's.
            if embedded_process or threading.current_thread() is not threading.main_thread():
                self._journal.write(Kind.EMBEDDED, parent=self._pid)
                if schedule_file is not None and service.schedule_filename == str(schedule_file):
                    schedule_file.parent.mkdir(parents=True, exist_ok=True)
            try:
                return start(service, embedded_process, **options)
            except Exception as error:
                self._journal.write(Kind.DIED, error=in_short(error))
                raise

        Service.start = watched_start

    def _watch_shadows(self) -> None:
        """Detect periodic tasks that replace another: Celery keeps the last one of each name."""
        add, put = Celery.add_periodic_task, Celery._add_periodic_task  # noqa: SLF001 - only it sees both of them.

        def watched_add(  # noqa: PLR0917 - as Celery's.
            app: Any, schedule: Any, sig: Any, args: Any = (), kwargs: Any = (), name: Any = None, **options: Any
        ) -> Any:
            key = add(app, schedule, sig, args, kwargs, name, **options)
            if not name:
                self._unnamed.add((id(app), key))
            return key

        def watched_put(app: Any, key: str, entry: Mapping[str, Any], *args: Any, **options: Any) -> Any:
            before = dict((app._conf.beat_schedule or {}).get(key) or {})  # noqa: SLF001 - `conf` may be being made.
            if before and before != dict(entry):
                said = {"entry": key, "lost": _shown(before.get("schedule")), "kept": _shown(entry.get("schedule"))}
                self._shadowed.append((id(app), key, said))
            return put(app, key, entry, *args, **options)

        Celery.add_periodic_task, Celery._add_periodic_task = watched_add, watched_put  # noqa: SLF001 - the same.

    def _shadows(self, app: Any) -> list[Json]:
        number = id(getattr(app, "_get_current_object", lambda: app)())
        # A caller that gives an existing name may intend to replace it.
        return [{**said, "named": (of, key) not in self._unnamed} for of, key, said in self._shadowed if of == number]

    # ------------------------------------------------------------------------------------------------ its schedule

    def _learn(self, entries: Mapping[str, Any]) -> bool:
        """Store the rules of these entries. Return whether they have changed."""
        rules = {entry.name: _scheduled(entry, self._deadline_s) for entry in entries.values()}
        self._schedules = {entry.name: entry.schedule for entry in entries.values()}
        self._rules, before = rules, self._rules
        return rules != before

    def _note_schedule(self, scheduler: Any, until: float) -> None:
        """Journal the schedule again if it was changed; `until` is the last time at which the old one was in force."""
        # The scheduler compares with this attribute itself. Reading its `schedule` may query a database.
        entries = getattr(scheduler, "old_schedulers", None)
        if entries is None or _same_schedules(entries, self._schedules):
            return
        if self._learn(entries):
            self._say_schedule(until, self._planned[1] if self._planned else time.time())

    def _note_entry(self, scheduler: Any, entry: Any) -> None:
        """Journal an entry that is not known yet: a scheduler may keep its entries in its own way."""
        if entry.name in self._rules:
            return
        text = f"{_shown(entry.schedule)}, which {type(scheduler).__name__} keeps in its own way"
        self._rules[entry.name] = {"entry": entry.name, "name": entry.task, "kind": "other", "text": text}
        now = time.time()
        self._say_schedule(now, now)

    def _say_schedule(self, until: float, at: float) -> None:
        self._journal.write(Kind.SCHEDULE, until=until, at=at, schedule=list(self._rules.values()))

    # ---------------------------------------------------------------------------------------------------- its work

    def _watch(self, scheduler: Any) -> None:
        # Some schedulers, such as RedBeat's, do not call `apply_entry`; Celery's own calls this method from there.
        self._watch_sending(scheduler)
        self._watch_planning(scheduler)
        self._watch_saving(scheduler)
        tick = scheduler.tick

        def watched_tick(*args: Any, **options: Any) -> Any:
            began = self._wake()
            pause_s = tick(*args, **options)
            ended = time.time()
            self._note_schedule(scheduler, began)
            said: dict[str, Json] = {"at": began, "took_s": ended - began, "next": ended + max(pause_s or 0.0, 0.0)}
            if self._planned is not None:
                said["planned_s"] = self._planned[1] - self._planned[0]
            self._journal.write(Kind.WOKE, **said)
            return pause_s

        scheduler.tick = watched_tick

    def _wake(self) -> float:
        self._woke, self._planned = time.time(), None
        return self._woke

    def _watch_sending(self, scheduler: Any) -> None:
        apply_async, is_due = scheduler.apply_async, getattr(scheduler, "is_due", None)
        sending = self._sending

        def watched_is_due(entry: Any) -> Any:
            before = time.time()
            answer = is_due(entry) if is_due else entry.is_due()
            after = time.time()
            # When the entry is due next by the schedule's own answer; beat adds to it the time that it takes to send.
            is_told = answer[0] and _is_number(answer[1])
            sending.answer = (entry.name, [before + answer[1], after + answer[1]]) if is_told else None
            return answer

        def watched_apply_async(entry: Any, *args: Any, **options: Any) -> Any:
            self._note_entry(scheduler, entry)
            name, following = getattr(sending, "answer", None) or (None, None)
            sending.entry, sending.following = entry.name, following if name == entry.name else None
            try:
                return apply_async(entry, *args, **options)
            except Exception as error:
                self._journal.write(Kind.UNSENT, entry=entry.name, at=time.time(), reason=in_short(error))
                raise
            finally:
                sending.entry = sending.following = None

        scheduler.apply_async = watched_apply_async
        if is_due is not None:
            scheduler.is_due = watched_is_due

    def _watch_saving(self, scheduler: Any) -> None:
        """Tell when the schedule is saved. A scheduler without a `sync` of its own has no such moment."""
        if type(scheduler).sync is Scheduler.sync:
            return
        sync = scheduler.sync

        def watched_sync(*args: Any, **options: Any) -> Any:
            self._reach(Moment.SCHEDULE_SAVING, *self._sent)
            saved = sync(*args, **options)
            self._reach(Moment.SCHEDULE_SAVED, *self._sent)
            return saved

        scheduler.sync = watched_sync

    def _watch_planning(self, scheduler: Any) -> None:
        """Measure how long it takes to plan all entries: each first tick may be planned too late by that much."""
        populate_heap = getattr(scheduler, "populate_heap", None)
        if populate_heap is None:
            return

        def watched_populate_heap(*args: Any, **options: Any) -> Any:
            began = time.time()
            planned = populate_heap(*args, **options)
            self._planned = (began, time.time())
            self._note_schedule(scheduler, self._woke or began)
            return planned

        scheduler.populate_heap = watched_populate_heap


def _same_schedules(entries: Mapping[str, Any], schedules: Mapping[str, Any]) -> bool:
    """Return whether each entry still has the same schedule object; cheap, as it runs for all entries on each wake."""
    return len(entries) == len(schedules) and all(
        schedules.get(entry.name) is entry.schedule for entry in entries.values()
    )


def _shown(schedule: Any) -> str:
    """Return a schedule on one line: the text of some has several."""
    return " ".join(str(schedule).split())


def in_short(error: BaseException) -> str:
    """Return an error as the journal shows it: its class, and the beginning of its message."""
    return f"{type(error).__name__}: {error}"[:_REASON_LENGTH]


def _stretch(conf: Any, speed: float) -> None:
    """Multiply the network timeouts by the speed, so that a fast clock leaves the app the same real time."""
    options = conf.get("broker_transport_options") or {}
    conf.broker_transport_options = {
        name: min(value * speed, _LONGEST_TIMEOUT_S) if name.endswith("timeout") and _is_number(value) else value
        for name, value in options.items()
    }
    policy = conf.get("task_publish_retry_policy") or {}
    conf.task_publish_retry_policy = {
        name: value * speed if name.startswith("interval_") and _is_number(value) else value
        for name, value in policy.items()
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# --------------------------------------------------------------------------------------------- an entry of the schedule


def _scheduled(entry: Any, deadline_s: float | None = None) -> dict[str, Json]:
    """Return one entry of beat's schedule, as the app wrote it."""
    said: dict[str, Json] = {"entry": entry.name, "name": entry.task}
    schedule = entry.schedule
    try:
        own = _own_way(entry)
    except Exception as error:  # noqa: BLE001 - a schedule is the app's own code, and Celery lives with its errors.
        own = f", which cannot be asked: {in_short(error)}"
    if own is not None:
        return {**said, "kind": "other", "text": f"{_shown(schedule)}{own}"}
    if isinstance(schedule, crontab):
        fields = {field: _cron_field(getattr(schedule, f"_orig_{field}")) for field in _CRON_FIELDS}
        late = {} if deadline_s is None else {"deadline_s": deadline_s}
        return {**said, "kind": "crontab", **fields, "timezone": str(schedule.tz), **late}
    return {**said, "kind": "interval", "every_s": schedule.seconds, "relative": bool(schedule.relative)}


def _own_way(entry: Any) -> str | None:
    """Return how an entry or its schedule departs from Celery's rules for when it is due; None if they hold."""
    schedule = entry.schedule
    base = next((base for base in (crontab, interval) if isinstance(schedule, base)), None)
    if base is None:
        return ""
    if own := _overridden(schedule, base):
        return f", of {type(schedule).__name__} with its own {', '.join(own)}"
    if not _tells_the_time(schedule):
        return ", with a clock of its own"
    is_plain = type(schedule) is crontab or not isinstance(schedule, crontab)
    if not is_plain and not _means_what_it_says(schedule):
        return f", of {type(schedule).__name__} with other times than it says"
    return _own_entry(entry)


def _overridden(schedule: Any, base: type) -> list[str]:
    """Return the names that a schedule or its class overrides, and that may decide when a tick is due."""
    own: set[str] = set()
    for cls in type(schedule).__mro__:
        if cls is base or _named(cls) == _DJANGO_CRONTAB:
            break
        own |= {name for name in vars(cls) if hasattr(base, name) or name in _CRON_FIELDS}
    own |= {name for name in vars(schedule) if callable(getattr(base, name, None))}
    own -= _ZONE_ONLY
    return sorted(name for name in own if not name.startswith("__") or name == "__getattribute__")


def _tells_the_time(schedule: Any) -> bool:
    before = time.time()
    now: float = schedule.maybe_make_aware(schedule.now()).timestamp()
    return before - _CLOCK_SLACK_S <= now <= time.time() + _CLOCK_SLACK_S


def _means_what_it_says(schedule: Any) -> bool:
    """Return whether the times of a crontab follow from its fields: a subclass may change them after it was made."""
    plain = crontab(**{field: getattr(schedule, f"_orig_{field}") for field in _CRON_FIELDS})
    return all(getattr(schedule, field) == getattr(plain, field) for field in _CRON_FIELDS)


def _own_entry(entry: Any) -> str | None:
    cls = next((cls for cls in type(entry).__mro__ if "is_due" in vars(cls)), ScheduleEntry)
    if cls is ScheduleEntry:
        return None
    if _named(cls) != _DJANGO_ENTRY:
        return f", of an entry of {cls.__name__} with its own is_due"
    limits = [name for name in _DJANGO_LIMITS if getattr(entry.model, name, None)]
    return f", of an entry with {', '.join(limits)}" if limits else None


def _named(cls: type) -> tuple[str, str]:
    return cls.__module__, cls.__qualname__


def _cron_field(value: Any) -> str:
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ",".join(str(one) for one in value)
    return str(value)
