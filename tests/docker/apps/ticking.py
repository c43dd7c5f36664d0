"""`app` has a schedule with entries of every kind, `misbehaving` a scheduler that breaks two ticks, `idle` none."""

from typing import Any

from celery import Celery
from celery.beat import PersistentScheduler
from celery.schedules import crontab


class Misbehaving(PersistentScheduler):
    """Celery's own scheduler, but that it leaves out `hourly` at noon, and sends it twice an hour later."""

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send it, as often as it is not supposed to be."""
        hour = entry.schedule.now().astimezone(self.app.timezone).hour
        times = {12: 0, 13: 2}.get(hour, 1) if entry.name == "hourly" else 1
        for _ in range(times):
            super().apply_entry(entry, producer=producer)


def ticking(name: str, **options: bool) -> Celery:
    """An app with entries of every kind that can be calculated."""
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
idle = Celery("idle", set_as_current=False)
