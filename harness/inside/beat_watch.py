"""What the journal says of beat: its schedule, which entry it sends, and when it wakes and means to wake again."""

import time
from collections.abc import Iterable
from typing import Any

from celery.schedules import crontab
from celery.schedules import schedule as interval

from harness.evidence.journal import Writer
from harness.evidence.records import Json, Kind

_CRON_FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")


class BeatWatch:
    """Journals what beat does in this process, whatever class the app's scheduler is of."""

    def __init__(self, journal: Writer) -> None:
        """Watches nothing yet; see `begin`."""
        self._journal = journal
        self._entry: str | None = None
        """The entry of the schedule that is being sent."""

    def begin(self, service: Any, *, confirm_publish: bool, says_ready: bool) -> None:
        """Say what beat runs with, and watch it from now on.

        Args:
            service: the sender of Celery's signal `beat_init`.
            confirm_publish: whether its broker confirms what it takes.
            says_ready: with `worker --beat`, what has to be ready is the worker.
        """
        scheduler = service.scheduler
        self._journal.write(
            Kind.SETTINGS,
            confirm_publish=confirm_publish,
            timezone=str(service.app.timezone),
            schedule=[_scheduled(entry) for entry in scheduler.schedule.values()],
        )
        self._watch(scheduler)
        if says_ready:
            self._journal.write(Kind.READY, at=time.time())

    def sending(self) -> dict[str, Json]:
        """What `intended` adds while beat sends an entry: `entry`, and `at` by beat's clock; empty otherwise."""
        return {} if self._entry is None else {"entry": self._entry, "at": time.time()}

    def _watch(self, scheduler: Any) -> None:
        # Some schedulers, such as RedBeat's, pass by `apply_entry`; Celery's own gets from there to here.
        apply_async, tick = scheduler.apply_async, scheduler.tick

        def watched_apply_async(entry: Any, *args: Any, **options: Any) -> Any:
            self._entry = entry.name
            try:
                return apply_async(entry, *args, **options)
            finally:
                self._entry = None

        def watched_tick(*args: Any, **options: Any) -> Any:
            began = time.time()
            pause_s = tick(*args, **options)
            ended = time.time()
            self._journal.write(Kind.WOKE, at=began, took_s=ended - began, next=ended + max(pause_s or 0.0, 0.0))
            return pause_s

        scheduler.apply_async, scheduler.tick = watched_apply_async, watched_tick


def _scheduled(entry: Any) -> dict[str, Json]:
    """One entry of beat's schedule, as the app wrote it."""
    said: dict[str, Json] = {"entry": entry.name, "name": entry.task}
    schedule = entry.schedule
    if isinstance(schedule, crontab):
        fields = {field: _cron_field(getattr(schedule, f"_orig_{field}")) for field in _CRON_FIELDS}
        return {**said, "kind": "crontab", **fields, "timezone": str(schedule.tz)}
    # Subclasses, such as a solar schedule, follow rules of their own.
    if type(schedule) is interval:
        return {**said, "kind": "interval", "every_s": schedule.seconds, "relative": bool(schedule.relative)}
    return {**said, "kind": "other", "text": str(schedule)}


def _cron_field(value: Any) -> str:
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ",".join(str(one) for one in value)
    return str(value)
