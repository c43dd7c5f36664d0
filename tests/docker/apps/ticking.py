"""Schedules for a time-lapse.

`app` has entries of every kind, `misbehaving` a scheduler that breaks two ticks, `troubled` entries that are never sent
or whose times nobody can calculate and one that comes later, `impatient` a deadline, and `idle` nothing.
"""

from datetime import datetime
from typing import Any

from celery import Celery
from celery.beat import PersistentScheduler
from celery.schedules import crontab


class OnTheHour(crontab):
    """Decides for itself."""

    def is_due(self, last_run_at: datetime) -> Any:
        """As Celery does."""
        return super().is_due(last_run_at)


class Growing(PersistentScheduler):
    """Has one entry more once it has sent one."""

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send it, and add the other."""
        super().apply_entry(entry, producer=producer)
        if "added" not in self.schedule:
            self.add(name="added", task="ticking.tick", schedule=crontab(minute="*/20"))


class Misbehaving(PersistentScheduler):
    """Celery's own scheduler, but that it leaves out `hourly` at noon, and sends it twice an hour later."""

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send it, as often as it is not supposed to be."""
        hour = entry.schedule.now().astimezone(self.app.timezone).hour
        times = {12: 0, 13: 2}.get(hour, 1) if entry.name == "hourly" else 1
        for _ in range(times):
            super().apply_entry(entry, producer=producer)


def ticking(name: str, **options: bool) -> Celery:
    """Return an app with entries of every kind that can be calculated."""
    app = Celery(name, **options)
    app.conf.timezone = "Europe/Berlin"
    app.conf.beat_schedule = {
        "hourly": {"task": "ticking.tick", "schedule": crontab(minute=0)},
        "quarter-hourly": {"task": "ticking.tick", "schedule": crontab(minute="*/15")},
        "nightly": {"task": "ticking.tick", "schedule": crontab(hour=2, minute=30)},
        "every-ten-minutes": {"task": "ticking.tick", "schedule": 600.0},
    }
    return app


app = ticking("ticking")
# Beat asks the current app for the zone, once it has read its schedule back from its file.
misbehaving = ticking("misbehaving", set_as_current=False)
misbehaving.conf.beat_scheduler = Misbehaving
troubled = Celery("troubled", set_as_current=False)
troubled.conf.timezone = "Europe/Berlin"
troubled.conf.beat_scheduler = Growing
troubled.conf.beat_schedule = {
    "unsendable": {"task": "ticking.add", "schedule": crontab(minute=0), "args": (1,)},
    "own": {"task": "ticking.tick", "schedule": OnTheHour(minute=0)},
    "quarter-hourly": {"task": "ticking.tick", "schedule": crontab(minute="*/15")},
}
for hour in (7, 19):
    troubled.add_periodic_task(crontab(minute=0, hour=hour), troubled.signature("ticking.news"))
impatient = ticking("impatient", set_as_current=False)
impatient.conf.beat_cron_starting_deadline = 60
idle = Celery("idle", set_as_current=False)


@troubled.task(name="ticking.add")
def add(one: int, other: int) -> int:
    """Want two arguments."""
    return one + other
